//! An agent on the bare runtime: `raw-agent source N | relay | sink N`. Numbers travel; the sink checks their order.
use shoal_runtime::attachment::{Attachment, Found, attach};
use shoal_tests::agents::RawNumber;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut a = attach().unwrap_or_else(|e| {
        eprintln!("raw-agent: {e}");
        std::process::exit(1)
    });
    let number = args.get(2).map_or(0, |n| n.parse::<u64>().expect("a number"));
    a.ready().expect("ready");
    match args[1].as_str() {
        "source" => source(&mut a, number),
        "relay" => relay(&mut a),
        _ => sink(&mut a, number),
    }
}

fn write(a: &mut Attachment, value: u64) {
    a.outputs.write(0, &mut a.world, None, &mut RawNumber(value)).expect("alive").expect("sent");
}

fn source(a: &mut Attachment, count: u64) {
    while a.outputs.producer(0).tail().sequence < count {
        let value = a.outputs.producer(0).tail().sequence;
        write(a, value);
        a.outputs.commit(None, &mut a.world).expect("alive");
    }
}

fn next(a: &mut Attachment) -> Option<(usize, shoal_runtime::consumer::Frame, u64)> {
    let all: Vec<usize> = (0..a.manifest.inputs.len()).collect();
    let inputs = &mut a.inputs;
    match a.world.wait(None, |world, thorough| inputs.look(&all, world, thorough)).expect("alive") {
        Some(Found::Message(input, frame)) => {
            let (sources, _) = a.inputs.consumer(input).split();
            assert!(sources.lease(&frame));
            let bytes = sources.leased(&frame);
            Some((input, frame, u64::from_le_bytes(bytes.try_into().expect("eight bytes"))))
        }
        _ => None,
    }
}

fn relay(a: &mut Attachment) {
    while let Some((input, frame, value)) = next(a) {
        write(a, value);
        let (_, cursor) = a.inputs.consumer(input).split();
        a.outputs.commit(Some((input, cursor, &frame)), &mut a.world).expect("alive");
    }
}

fn sink(a: &mut Attachment, count: u64) {
    let mut seen = 0;
    while let Some((input, frame, value)) = next(a) {
        assert_eq!(value, frame.at.sequence);
        seen = value + 1;
        let (_, cursor) = a.inputs.consumer(input).split();
        a.outputs.commit(Some((input, cursor, &frame)), &mut a.world).expect("alive");
    }
    println!("sink saw {seen} of {count}");
}
