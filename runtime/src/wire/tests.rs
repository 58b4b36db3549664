use super::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair")
}

#[test]
fn every_message_arrives_as_it_was_sent_with_its_descriptors() {
    let (here, there) = pair();
    let link = |agent| Incarnation { agent, generation: agent + 7 };
    let all = [
        (ToAgent::Hello, 4),
        (ToAgent::Links((0..LINKS_PER_PACKET as u32).map(link).collect()), 2 * LINKS_PER_PACKET),
        (ToAgent::Go, 0),
        (ToAgent::Declared, 0),
        (ToAgent::Refused("no".into()), 0),
        (ToAgent::Parked, 0),
    ];
    for (message, fds) in all {
        tell(&here, &message, &vec![here.as_fd(); fds]).expect("sent");
        let Received::Packet(got, got_fds) = hear(&there, true).expect("received") else { panic!("nothing") };
        assert_eq!((got, got_fds.len()), (message, fds));
    }
    let words = [
        FromAgent::Mapped,
        FromAgent::LinksTaken,
        FromAgent::Declare { channel: 3, publishes: true, fingerprint: u64::MAX },
        FromAgent::Ready,
        FromAgent::Fault { of: link(5), seen_ns: 1 << 60 },
        FromAgent::Failed {
            input: 1,
            at: Place { position: 4096, sequence: 3 },
            attempt: 2,
            why: "no such path: ä".into(),
        },
        FromAgent::Park(Park {
            input: u32::MAX,
            at: Place { position: u64::MAX, sequence: u64::MAX },
            len_bytes: 1 << 40,
            attempts: 3,
            rejected: true,
            why: String::new(),
        }),
        FromAgent::Closed,
    ];
    for message in words {
        say(&there, &message, &[there.as_fd()]).expect("said");
        let Received::Packet(got, fds) = listen(&here).expect("heard") else { panic!("nothing") };
        assert_eq!((got, fds.len()), (message, 1));
    }
    let why = "ä".repeat(TEXT_BYTES_MAX);
    say(&there, &FromAgent::Failed { input: 0, at: Place::default(), attempt: 1, why }, &[]).expect("said");
    let Received::Packet(FromAgent::Failed { why, .. }, _) = listen(&here).expect("heard") else {
        panic!("nothing")
    };
    assert_eq!(why, "ä".repeat(TEXT_BYTES_MAX / 2), "a long text is cut");
    assert!(matches!(listen(&here).expect("asked"), Received::Nothing));
    drop(there);
    assert!(matches!(listen(&here).expect("asked"), Received::Closed));
}

#[test]
fn odd_packets_from_an_agent_are_errors_and_never_block_the_supervisor() {
    let (here, there) = pair();
    let long = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[0; 49]].concat();
    let longer = [&[7, 0, 0, 0, 0, 0, 0, 0][..], &[0; 48 + TEXT_BYTES_MAX + 1]].concat();
    for packet in [&b"x"[..], &[0; 56], &[255; 56], &[3; 64], &[4; 55], &long, &longer] {
        send(&there, packet, &[there.as_fd()], MsgFlags::empty()).expect("sent");
        assert!(listen(&here).is_err());
    }
    let full = (0..100_000).find_map(|_| tell(&here, &ToAgent::Go, &[]).err()).expect("the socket fills");
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn answer_bears_the_number_of_its_question_and_a_packet_that_is_overheard_stays() {
    let (here, there) = pair();
    let question = FromAgent::Declare { channel: 1, publishes: false, fingerprint: 9 };
    ask(&there, &question, u32::MAX, &[there.as_fd()]).expect("asked");
    for _ in 0..2 {
        let Received::Packet(heard, fds) = overhear(&here).expect("heard") else { panic!("nothing") };
        assert_eq!((heard, fds.len()), ((question.clone(), u32::MAX), 1));
    }
    drop_one(&here).expect("dropped");
    assert!(matches!(overhear(&here).expect("heard"), Received::Nothing));
    answer(&here, &ToAgent::Refused("no".into()), 7).expect("answered");
    let Received::Packet(heard, _) = hear_answer(&there, true).expect("heard") else { panic!("nothing") };
    assert_eq!(heard, (ToAgent::Refused("no".into()), 7));
}

#[test]
fn last_words_of_who_left_something_unread_are_heard() {
    let (here, there) = pair();
    say(&there, &FromAgent::Begun, &[]).expect("said");
    tell(&here, &ToAgent::Go, &[]).expect("told");
    drop(there);
    assert!(matches!(overhear(&here), Ok(Received::Packet((FromAgent::Begun, _), _))));
    drop_one(&here).expect("taken");
    assert!(matches!(overhear(&here), Ok(Received::Closed)));
}

#[test]
fn manifest_of_another_version_or_of_none_is_refused_with_both_versions() {
    let told = |bytes: &[u8]| {
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes);
        Manifest::from_bytes(&aligned).expect_err("another's").to_string()
    };
    let next = (MANIFEST_VERSION + 1).to_le_bytes();
    let of_next = told(&[&MANIFEST_MAGIC[..], &next, &[0; 512]].concat());
    let ours = format!("the agent reads version {MANIFEST_VERSION};");
    assert!(of_next.contains(&format!("is of version {}, {ours}", MANIFEST_VERSION + 1)), "{of_next}");
    for of_none in [told(&[0; 512]), told(b"")] {
        assert!(of_none.contains(&format!("is without a version, {ours}")), "{of_none}");
    }
    let damaged = told(&[&MANIFEST_MAGIC[..], &MANIFEST_VERSION.to_le_bytes(), &[255; 512]].concat());
    assert!(damaged.contains("no manifest of this build"), "{damaged}");
}

#[test]
fn version_of_the_manifest_goes_up_with_its_size() {
    let parts = [
        size_of::<ArchivedManifest>(),
        size_of::<ArchivedChannelEntry>(),
        size_of::<ArchivedNeighbourEntry>(),
        size_of::<ArchivedClaimsEntry>(),
        size_of::<ArchivedTableEntry>(),
        size_of::<ArchivedReaderEntry>(),
        size_of::<ArchivedLaneEntry>(),
        size_of::<ArchivedInputEntry>(),
    ];
    assert_eq!(
        (MANIFEST_VERSION, parts),
        (1, [184, 24, 20, 16, 24, 24, 24, 64]),
        "count the version up, and note both here"
    );
}
