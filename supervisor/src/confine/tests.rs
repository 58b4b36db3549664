//! What is chosen for which key, and what real processes under it may do.

use super::*;
use crate::config::{Identity, Reach};

fn config(confinement: Confinement) -> Agent {
    Agent {
        confinement: confinement.into(),
        command: vec!["/bin/true".into()],
        ..crate::postman::agent(std::path::Path::new("/")).expect("an agent")
    }
}

fn made(confinement: Confinement) -> (Arc<Cage>, Vec<String>) {
    Cages::default().of(Urgency::default(), 3, "a", &config(confinement)).expect("made")
}

#[test]
fn trusted_agent_of_which_nothing_is_said_only_gains_no_rights() {
    let (cage, lacks) = made(Confinement::default());
    assert!(
        cage.no_new_privs && !cage.drops_capabilities && cage.landlock.is_none() && cage.filters.is_empty()
    );
    assert!(cage.rlimits.is_empty() && cage.cgroups.is_empty() && lacks.is_empty());
}

#[test]
fn memory_without_a_cgroup_is_bounded_as_data() {
    assert_eq!(instead(Controller::Memory, 4096, false), Ok((libc::RLIMIT_DATA, 4096)));
    assert!(instead(Controller::Cpu, 50, false).is_err());
    assert_eq!(instead(Controller::Pids, 5, true), Ok((libc::RLIMIT_NPROC, 5)), "of a user of its own");
}

#[test]
fn mask_names_each_processor() {
    assert_eq!(mask(&[]), Vec::<u64>::new());
    assert_eq!(mask(&[0, 65]), [1, 2]);
}

#[test]
fn own_numbers_of_hostile_agents_are_nobodys() {
    let (a, b, c) = (own_uid(1, 1), own_uid(1, 2), own_uid(2, 1));
    assert!(a != b && a != c && b != c);
    // Those of containers end before, and the sign bit is not touched.
    assert!((OWN_UID_BASE..0x8000_0000).contains(&own_uid(u32::MAX, u32::MAX)));
}

#[test]
fn cage_is_made_once_and_again_when_the_file_says_otherwise() {
    let mut cages = Cages::default();
    let first = cages.of(Urgency::default(), 3, "a", &config(Confinement::default())).expect("made").0;
    assert!(Arc::ptr_eq(
        &first,
        &cages.of(Urgency::default(), 3, "a", &config(Confinement::default())).expect("made").0
    ));
    let other = Confinement { profile: Profile::Default, ..Confinement::default() };
    let second = cages.of(Urgency::default(), 3, "a", &config(other)).expect("made").0;
    assert!(!second.filters.is_empty());
}

#[test]
fn cage_is_shared_by_agents_of_which_the_same_is_said_and_those_that_are_own_are_not() {
    let mut cages = Cages::default();
    let mut of = |agent: u32, confinement: Confinement| {
        cages.of(Urgency::default(), agent, &format!("a{agent}"), &config(confinement)).expect("made").0
    };
    let filtered = || Confinement { profile: Profile::Default, ..Confinement::default() };
    let [first, other, again] =
        [of(1, Confinement::default()), of(2, filtered()), of(3, Confinement::default())];
    assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other));
    assert!(Arc::ptr_eq(&other, &of(4, filtered())));
    // Where the kernel has landlock, each has the rules of its own program; and at any rate a number of its own.
    let hostile = || Confinement { trust: Trust::Hostile, ..filtered() };
    assert!(!Arc::ptr_eq(&of(5, hostile()), &of(6, hostile())));
}

#[test]
fn path_that_is_not_there_is_named() {
    let reach = Some(Reach { read: vec!["/nowhere/at/all".into()], write: Vec::new() });
    let error = Cages::default().of(
        Urgency::default(),
        3,
        "a",
        &config(Confinement { reach, ..Confinement::default() }),
    );
    assert!(error.expect_err("refused").to_string().contains("/nowhere/at/all"));
}

#[test]
fn identity_that_the_supervisor_has_already_needs_no_change() {
    let (uid, gid) = own_numbers();
    if uid != 0 {
        let (cage, _) = made(Confinement { identity: Some(Identity { uid, gid }), ..Confinement::default() });
        assert!(!cage.changes_user());
    }
}
