use super::super::digest::FDS;
use super::super::{Kept, agent_record, words_for};
use super::*;
use crate::config;
use crate::dead_letters::DeadLetters;
use crate::output::{Capture, Echo};
use crate::records::Records;
use crate::restart::Streak;
use crate::swarm::stand::room_for;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use shoal_runtime::board::{Verdict, VerdictKind};
use std::io::pipe;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// The first agent has a deadline.
const TEXT: &str = r#"
    [swarm]
    name = "s"
    [channel.c]
    message = "C"
    [agent.a]
    command = ["/nowhere"]
    subscribes = ["c"]
    deadline = "1s"
    [agent.b]
    command = ["/nowhere"]
    publishes = ["c"]
"#;

/// A swarm, which keeps this journal or one of its own.
fn swarm(journal: Option<Arc<Journal>>) -> (Swarm, Arc<Journal>, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = config::parse(Path::new("t.toml"), TEXT).unwrap_or_else(|error| panic!("{error}"));
    let letters = DeadLetters::open(&folder.path().join("letters"), file.dead_letters).expect("opened");
    let records = Records::open(folder.path(), &file, Box::new(|_| ())).expect("opened");
    let logs = PathBuf::from(folder.path());
    let captures = Box::new(move |agent: &str| Capture::new(agent, logs.as_path(), Echo::off()));
    let mut swarm = Swarm::new(file, letters, captures, records).expect("made");
    let journal = journal.unwrap_or_else(|| {
        let sizes = room_for(0, swarm.agents.iter().map(|agent| &agent.shape));
        Arc::new(Journal::create(words_for(swarm.agents.len()), &sizes, &[8, 8, 8]).expect("memory"))
    });
    swarm.kept = Some(Kept::of(journal.clone()));
    (swarm, journal, folder)
}

/// What a predecessor has left of the first agent, which is calm and of which nothing is as it is by itself: its record, its journal.
fn left() -> (AgentRecord, Arc<Journal>) {
    let (mut swarm, journal, _folder) = swarm(None);
    let [memory, sealed] = [(); 2].map(|()| segment::freeze("left", b"x").expect("memory"));
    let (control, doorbell) = (UnixStream::pair().expect("a pair").0, Doorbell::create().expect("one"));
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process");
    let [out, err] = [(); 2].map(|()| Some(OwnedFd::from(pipe().expect("a pipe").0)));
    let of = Incarnation { agent: 0, generation: 3 };
    let entry = &mut swarm.agents[0];
    entry.live = Some(Live {
        incarnation: of,
        owner: 7,
        child: Child { pid: 4711, pidfd, adopted: false },
        control: control.into(),
        segment: memory,
        doorbell,
        pipes: [out, err],
        sealed: Some(Sealed::seen_before(sealed, &entry.shape)),
        post: Post::default(),
        at_once: false,
        going: true,
        parked: false,
        begun: true,
        by: Some("somebody".into()),
        asked: 0,
        // What an instant is in ns is not known to the ns.
        born: Instant::now(),
        killed_ns: Some(11),
        violated_ns: Some(12),
        hung_ns: None,
        ordered: false,
        dead_since: None,
    });
    (entry.state, entry.state_serial, entry.generation, entry.numbered) = (State::Ready, 9, 3, 5);
    let second = Duration::from_secs(1);
    let (lived, deaths) = (3 * second, vec![second]);
    entry.intensity.restore(Streak { lived, born: Some(second), deaths, pauses_count: 2 });
    entry.last = Verdict { generation: 2, kind: VerdictKind::Corrupt, lanes: vec![], inputs: vec![] };
    entry.last_state = vec![1, 2, 0, 0];
    entry.was_ready = true;
    (entry.restarts, entry.rescues, entry.hangs, entry.faults) = (21, 22, 23, 24);
    let counts = Histogram::default().counts().iter().map(|_| 4).collect();
    entry.past = Totals { sent: 31, received: 32, latency: Histogram::from_counts(counts) };
    entry.died_at = Some((2, 33));
    entry.last_ending = Some("ended".into());
    entry.last_crash = Some(Crash { generation: 2, how: "how".into(), at: second });
    swarm.note_watched(of);
    swarm.write_agent(0);
    let record = agent_record(&swarm.agents[0]);
    // It is killed: what it had open stays so.
    std::mem::forget(swarm);
    (record, journal)
}

/// Its successor has looked at the journal.
fn succeed(journal: &Arc<Journal>) -> (Swarm, TempDir) {
    let (mut swarm, _, folder) = swarm(Some(journal.clone()));
    let mut known = Vec::new();
    let Found { at_once, timers } =
        swarm.find_agents(journal, (true, true), &mut known).expect("it is whole");
    assert_eq!((at_once, timers.len(), swarm.agents.any_put_off()), (Vec::new(), 0, true));
    assert_eq!(known.iter().filter(|fd| **fd >= 0).count(), FDS, "what it has open is known");
    (swarm, folder)
}

/// What a record says but for when its life began, which is known only nearly.
fn timeless(mut record: AgentRecord) -> AgentRecord {
    record.live.iter_mut().for_each(|live| live.born_ns = 0);
    record
}

#[test]
fn who_was_put_off_is_all_that_its_record_says_however_it_is_come_by() {
    let ways: [fn(&mut Swarm); 3] = [
        |swarm| assert!(swarm.agents[0].live.is_some()),
        Swarm::recollect,
        |swarm| swarm.check_taken_over(true).expect("nothing is another"),
    ];
    for way in ways {
        let (record, journal) = left();
        let (mut swarm, _folder) = succeed(&journal);
        way(&mut swarm);
        assert!(!swarm.agents.any_put_off());
        assert_eq!(timeless(agent_record(&swarm.agents[0])), timeless(record));
        assert!(swarm.is_unchecked() || swarm.check_taken_over(true).is_ok());
    }
}

/// Goal: who has a deadline and was put off is listened to, and until then nobody relies on being rung. Method: a doorbell tells at once who
/// begins to listen to it.
#[test]
fn doorbell_of_who_was_put_off_is_listened_to_once_it_is_checked() {
    let (_, journal) = left();
    let (mut swarm, _folder) = succeed(&journal);
    let is_rung = |swarm: &Swarm| {
        let mut bells = [PollFd::from_borrowed_fd(swarm.bells(), PollFlags::IN)];
        poll(&mut bells, Some(&Timespec::default())).expect("its epoll") == 1
    };
    assert_eq!((swarm.is_deaf(), is_rung(&swarm)), (true, false));
    swarm.check_taken_over(true).expect("nothing is another");
    assert_eq!((swarm.is_deaf(), is_rung(&swarm)), (false, true));
}

#[test]
fn words_say_that_an_agent_is_calm_only_while_its_record_says_so_and_is_written() {
    let (_, journal) = left();
    let (mut swarm, _folder) = succeed(&journal);
    let calm = Digest::read(&journal, 0).expect("it was left calm");
    let write = |swarm: &mut Swarm| {
        swarm.write_agent(0);
        Digest::read(&journal, 0)
    };
    swarm.agents[0].paused = true;
    assert_eq!(write(&mut swarm), None, "it is asked for something");
    swarm.agents[0].paused = false;
    assert_eq!(write(&mut swarm), Some(calm));
    swarm.agents[0].last_state = vec![1; 1 << 20];
    assert_eq!(write(&mut swarm), None, "there is no room for its record");
    assert_eq!(keeper::word(&journal, Word::Unsure), 1);
}

/// Goal: a descriptor that is not what the journal names is told of, also of an agent that something happens to before its turn. Method:
/// each in turn is made another one; then nothing is written, or the agent's record twice, or all of a changed swarm.
#[test]
fn descriptor_that_is_another_is_told_of_whatever_was_written_meanwhile() {
    let ways: [fn(&mut Swarm); 3] =
        [|_| {}, |swarm| [(); 2].iter().for_each(|()| swarm.write_agent(0)), Swarm::write_stand];
    for (way, which) in ways.iter().flat_map(|way| (0..FDS).map(move |which| (way, which))) {
        let (_, journal) = left();
        let (mut swarm, _folder) = succeed(&journal);
        assert!(swarm.is_unchecked());
        let live = swarm.agents[0].live.as_mut().expect("it lives");
        let [out, err] = &mut live.pipes;
        let read_only = live.sealed.as_mut().map(|sealed| &mut sealed.read_only);
        let (pidfd, control, segment) = (&mut live.child.pidfd, &mut live.control, &mut live.segment);
        let fds = [Some(pidfd), Some(control), Some(segment), None, out.as_mut(), err.as_mut(), read_only];
        // A doorbell is not lent to be changed.
        let Some(fd) = fds.into_iter().nth(which).flatten() else { continue };
        rustix::io::dup2(pipe().expect("a pipe").1, fd).expect("another one");
        way(&mut swarm);
        let told = swarm.check_taken_over(true).expect_err("it is another");
        assert!(told.to_string().contains("that the journal names"), "{which}: {told}");
    }
}

/// Goal: an agent whose record is not whole is not taken for one that was never started, whose process would be a stray. Method: of its
/// two it has only the words.
#[test]
fn who_was_put_off_and_has_no_record_is_not_taken_for_one_that_was_never_started() {
    let (_, whole) = left();
    let (_, without, _folder) = swarm(None);
    for which in [Of::Watched, Of::Calm, Of::Descriptors] {
        without.set_word(word_of(0, which), whole.word(word_of(0, which)));
    }
    let (mut swarm, _, _folder) = swarm(Some(without.clone()));
    swarm.find_agents(&without, (true, true), &mut Vec::new()).expect("nobody has looked at it");
    assert!(swarm.agents.any_put_off());
    assert!(catch_unwind(AssertUnwindSafe(|| swarm.agents[0].state)).is_err());
}
