//! What a peer delivers is looked at: real pairs of processes of the light peers deliver everything once, in order and whole,
//! in every way of waiting and size; and a pair that does not is found out, whatever it does wrong.
//!
//! The test starts itself as the ends of the pairs, so it has a `main` of its own.

use shoal_peers::broken::Fault;
use shoal_peers::pair::{Pair, Place};
use shoal_peers::registry::{PEERS, Peer};
use shoal_peers::run::{Asked, run};
use shoal_peers::server::{self, Server};
use shoal_peers::wire::Mode;
use shoal_peers::{end, report};

type Test = (&'static str, fn());

const TESTS: [Test; 5] = [
    (
        "light_peers_deliver_everything_once_in_order_and_whole",
        light_peers_deliver_everything_once_in_order_and_whole,
    ),
    ("peer_that_does_something_wrong_is_found_out", peer_that_does_something_wrong_is_found_out),
    ("peer_that_cannot_start_says_why", peer_that_cannot_start_says_why),
    (
        "run_has_a_row_for_each_peer_and_leaves_nothing_behind",
        run_has_a_row_for_each_peer_and_leaves_nothing_behind,
    ),
    (
        "servers_that_are_installed_deliver_and_end_with_the_run",
        servers_that_are_installed_deliver_and_end_with_the_run,
    ),
];

/// Those that need nothing.
const LIGHT: [Peer; 4] = [Peer::Pipe, Peer::UnixStream, Peer::UnixSeqpacket, Peer::SharedMemory];

fn main() {
    shoal_measure::peer::run_if_peer();
    server::run_if_server();
    end::run_if_end();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if std::env::args().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    for (name, test) in TESTS.iter().filter(|(name, _)| args.iter().all(|arg| name.contains(arg.as_str()))) {
        test();
        println!("test {name} ... ok");
    }
    println!("test result: ok.");
}

fn start(peer: Peer, mode: Mode, bytes: usize, fault: Option<Fault>) -> std::io::Result<Pair> {
    let folder = tempfile::tempdir()?;
    Pair::start(peer, mode, bytes, Place { folder: folder.path(), cpus: [None, None], server: "" }, fault)
}

fn light_peers_deliver_everything_once_in_order_and_whole() {
    for peer in LIGHT {
        for mode in [Mode::Spin, Mode::Parked] {
            for bytes in [8, 64, 64 << 10, 1 << 20] {
                if peer.refuses(mode, bytes).is_some() {
                    continue;
                }
                let told = || format!("{} {} {bytes}", peer.name(), mode.name());
                let mut pair = start(peer, mode, bytes, None).unwrap_or_else(|e| panic!("{}: {e}", told()));
                // Larger ones fill what holds them with fewer.
                let (count, trips) = if bytes > 64 { (12, 2) } else { (100, 10) };
                for every in [1, 16] {
                    let reply = pair.stream(count, every).unwrap_or_else(|e| panic!("{}: {e}", told()));
                    assert_eq!(reply.received, count, "{}", told());
                    let reply = pair.round_trips(trips).unwrap_or_else(|e| panic!("{}: {e}", told()));
                    assert_eq!(reply.received, 2 * trips, "{}", told());
                    assert!(reply.row[0] > 0 && reply.row.is_sorted(), "{}: {:?}", told(), reply.row);
                }
            }
        }
    }
}

fn peer_that_does_something_wrong_is_found_out() {
    for (fault, word) in [
        (Fault::Lose, "was lost or overtaken"),
        (Fault::Swap, "was lost or overtaken"),
        (Fault::Double, "came twice or late"),
        (Fault::Flip, "not those that were sent"),
    ] {
        for peer in LIGHT {
            let mut pair = start(peer, Mode::Parked, 64, Some(fault)).expect("a pair");
            let error = pair.stream(50, 1).expect_err("something was wrong").to_string();
            assert!(error.contains(word), "{} {fault:?}: {error}", peer.name());
            assert!(
                error.contains("message 7 was to come") || error.contains("message 8 was to come"),
                "{error}"
            );
        }
    }
}

fn peer_that_cannot_start_says_why() {
    // A server's socket that is not there.
    let place = Place { folder: "/".as_ref(), cpus: [None, None], server: "/nowhere/socket" };
    let error =
        Pair::start(Peer::Redis, Mode::Parked, 64, place, None).err().expect("nothing is there").to_string();
    assert!(error.contains("No such file"), "{error}");
}

fn run_has_a_row_for_each_peer_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = vec![Peer::Pipe, Peer::SharedMemory];
    let (sizes, modes) = (vec![64], vec![Mode::Spin]);
    let mut lines = Vec::new();
    let asked = Asked { peers, sizes, modes, rounds: 2, share: 20, base: folder.path().to_owned() };
    let report = run(&asked, &mut |row| lines.push(report::line(row))).expect("measured");
    let of = |case: &str| -> Vec<&str> {
        report.results.iter().filter(|row| row.case == case).map(|row| row.peer.as_str()).collect()
    };
    assert_eq!(of("latency"), ["shoal", "pipe", "shared-memory"]);
    assert_eq!(of("throughput"), ["shoal", "pipe", "shared-memory"]);
    assert_eq!(of("throughput_batch"), ["shoal", "pipe"], "one of them has no batches");
    assert_eq!(lines.len(), report.results.len());
    for row in &report.results {
        assert!(row.count > 0 && row.ratios_shoal.len() == 2, "{row:?}");
        assert!(row.p50_ns.or(row.msgs_per_s).is_some_and(|figure| figure > 0.0), "{row:?}");
        assert!(row.floor.is_some_and(|floor| floor > 0.0) && row.ratio_p50.is_some(), "{row:?}");
    }
    assert_eq!(report.not_measured, []);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert!(left.is_empty(), "{left:?}");
}

fn servers_that_are_installed_deliver_and_end_with_the_run() {
    for peer in PEERS.into_iter().filter(|peer| !LIGHT.contains(peer)) {
        if let Some(why) = peer.absent() {
            println!("{}: not measured: {why}", peer.name());
            continue;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(peer, folder.path()).unwrap_or_else(|e| panic!("{}: {e}", peer.name()));
        let address = server.as_ref().map_or("", Server::address);
        for mode in [Mode::Spin, Mode::Parked] {
            for bytes in [8, 64, 16 << 10] {
                if peer.refuses(mode, bytes).is_some() {
                    continue;
                }
                let place = Place { folder: folder.path(), cpus: [None, None], server: address };
                let told = || format!("{} {} {bytes}", peer.name(), mode.name());
                let mut pair =
                    Pair::start(peer, mode, bytes, place, None).unwrap_or_else(|e| panic!("{}: {e}", told()));
                for every in [1, 16] {
                    let streamed = pair.stream(100, every).unwrap_or_else(|e| panic!("{}: {e}", told()));
                    let trips = pair.round_trips(10).unwrap_or_else(|e| panic!("{}: {e}", told()));
                    assert_eq!((streamed.received, trips.received), (100, 20), "{}", told());
                }
            }
        }
    }
}
