//! Who is in the swarm of a harness: a manifest for the agent under test, its sources, and the sink.

use super::WhenFull;
use shoal_runtime::layout::{BoardShape, LaneShape, STATE_BYTES, SegmentShape};
use shoal_runtime::wire::{ChannelEntry, InputEntry, LaneEntry, Manifest, NeighbourEntry, ReaderEntry};

/// Index of the agent under test on the board; its sources follow, then the sink.
pub(super) const AGENT: u32 = 0;

/// A channel of the harness.
#[derive(Clone, Debug)]
pub(super) struct ChannelSpec {
    pub(super) name: String,
    pub(super) message: String,
    pub(super) fingerprint: u64,
    pub(super) publishes: bool,
    pub(super) capacity_bytes: u64,
    pub(super) when_full: WhenFull,
    pub(super) producers: u32,
    /// Its producers are not trusted.
    pub(super) isolated: bool,
}

/// The agents of the harness in the order of the board: the one under test, its sources, the sink.
pub(super) fn manifests(name: &str, replica: (u32, u32), channels: &[ChannelSpec]) -> Vec<Manifest> {
    let lane_shape = |index: usize| LaneShape {
        capacity_bytes: channels[index].capacity_bytes,
        when_full: channels[index].when_full,
        channel: index as u32,
    };
    let published: Vec<usize> = (0..channels.len()).filter(|&i| channels[i].publishes).collect();
    let read: Vec<(usize, u32)> = (0..channels.len())
        .filter(|&i| !channels[i].publishes)
        .flat_map(|i| (0..channels[i].producers).map(move |k| (i, k)))
        .collect();
    let source_shape =
        |index| SegmentShape { lanes: vec![lane_shape(index)], input_count: 0, state_bytes: 0 };
    let shape = SegmentShape {
        lanes: published.iter().map(|&i| lane_shape(i)).collect(),
        input_count: read.len() as u32,
        state_bytes: STATE_BYTES,
    };
    let sink_shape = SegmentShape { lanes: Vec::new(), input_count: published.len() as u32, state_bytes: 0 };
    let mut agents = vec![(published.len() as u32, read.len() as u32)];
    agents.extend(read.iter().map(|_| (1, 0)));
    agents.push((0, published.len() as u32));
    let sink = read.len() as u32 + 1;
    let blank = Manifest {
        swarm: "harness".to_owned(),
        file: "harness".to_owned(),
        name: String::new(),
        line: 0,
        agent: 0,
        generation: 1,
        owner: 0,
        prefetch: 1,
        replica: (0, 1),
        cpu_percent: None,
        fence_by_sleeper: false,
        permanent: false,
        standby: false,
        is_stood_by: false,
        shape: SegmentShape::default(),
        board: BoardShape { channel_count: channels.len() as u32, agents, ..BoardShape::default() },
        channels: (1..)
            .zip(channels)
            .map(|(line, c)| ChannelEntry {
                index: line - 1,
                name: c.name.clone(),
                message: c.message.clone(),
                line,
            })
            .collect(),
        channel_names: channels.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join("\n"),
        neighbours: Vec::new(),
        lanes: Vec::new(),
        inputs: Vec::new(),
        given: Vec::new(),
        attempts_max: 0,
        claims: Vec::new(),
    };
    let under_test =
        |read| NeighbourEntry { agent: AGENT, name: name.to_owned(), shape: shape.clone().into(), read };
    let source_name = |(index, k): (usize, u32)| {
        let ChannelSpec { name, producers, .. } = &channels[index];
        if *producers > 1 { format!("{name}-source.{}", k + 1) } else { format!("{name}-source") }
    };
    let mut neighbours: Vec<NeighbourEntry> = (1..)
        .zip(&read)
        .map(|(agent, &of)| NeighbourEntry {
            agent,
            name: source_name(of),
            shape: source_shape(of.0).into(),
            read: true,
        })
        .collect();
    let name_of_sink = "sink".to_owned();
    neighbours.push(NeighbourEntry {
        agent: sink,
        name: name_of_sink.clone(),
        shape: sink_shape.clone().into(),
        read: false,
    });
    let line = |channel: u32| channel + 1;
    let input = |channel: u32, neighbour, lane| InputEntry {
        channel,
        line: line(channel),
        neighbour,
        lane,
        share: (0, 1),
        table: None,
        copied: channels[channel as usize].isolated,
    };
    let lane = |channel: u32, neighbour, input| LaneEntry {
        channel,
        line: line(channel),
        readers: vec![ReaderEntry { neighbour, input, share: (0, 1), group: None }],
        groups: vec![],
    };
    let mut all = vec![Manifest {
        name: name.to_owned(),
        replica,
        shape: shape.clone(),
        neighbours,
        lanes: (0..).zip(&published).map(|(i, &channel)| lane(channel as u32, sink - 1, i)).collect(),
        inputs: (0..).zip(&read).map(|(i, &(channel, _))| input(channel as u32, i, 0)).collect(),
        ..blank.clone()
    }];
    all.extend((0..).zip(&read).map(|(i, &of)| Manifest {
        name: source_name(of),
        agent: i + 1,
        shape: source_shape(of.0),
        neighbours: vec![under_test(false)],
        lanes: vec![lane(of.0 as u32, 0, i)],
        ..blank.clone()
    }));
    all.push(Manifest {
        name: name_of_sink,
        agent: sink,
        shape: sink_shape,
        neighbours: vec![under_test(true)],
        inputs: (0..).zip(&published).map(|(i, &channel)| input(channel as u32, 0, i)).collect(),
        ..blank
    });
    all
}
