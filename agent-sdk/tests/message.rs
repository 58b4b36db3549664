//! Goal: what an author writes with `#[message]` compiles without a warning, comes back as it was sent, and has a
//! fingerprint that every change of the type changes.
#![deny(warnings, missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used)]

use std::mem::MaybeUninit;

use shoal_agent::__private::{Fingerprint, Message, Typed};
use shoal_runtime::message::{Scratch, access, encode, to_owned};

/// Messages as an agent has them: only `shoal_agent` is named, private and public types, no unsafe.
mod agent {
    #![forbid(unsafe_code)]

    #[derive(Debug, Clone, PartialEq)]
    #[shoal_agent::message]
    pub(crate) struct Task {
        pub(crate) path: String,
        pub(crate) owner: Option<Box<Owner>>,
        pub(crate) steps: Vec<Step>,
        pub(crate) range: (u64, u128),
        pub(crate) digest: [u8; 32],
        pub(crate) r#type: char,
    }

    #[shoal_agent::message]
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Owner(pub(crate) String, pub(crate) u32);

    #[shoal_agent::message]
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Stop;

    /// A documented message.
    #[shoal_agent::message]
    #[derive(Debug, Clone, PartialEq)]
    pub enum Step {
        /// Nothing.
        Wait,
        /// Some.
        Read(String, u64),
        /// More.
        Write {
            /// Where.
            to: Vec<String>,
        },
    }

    // A private one that this program only sends: never matched, never read.
    #[shoal_agent::message]
    struct Report {
        lines: u64,
        level: Level,
    }

    #[shoal_agent::message]
    enum Level {
        Low = 3,
        High,
    }

    pub(crate) fn send(send: impl FnOnce(Box<dyn std::any::Any>)) {
        let _ = Level::High;
        send(Box::new(Report { lines: 1, level: Level::Low }));
    }
}

use agent::{Owner, Step, Stop, Task};

#[repr(align(16))]
struct Memory([MaybeUninit<u8>; 4096]);

fn with_archive<M: Message, R>(message: &M, read: impl FnOnce(&[u8]) -> R) -> R {
    let mut slot = Memory([MaybeUninit::uninit(); 4096]);
    let length_bytes = encode(message, &mut slot.0, &mut Scratch::new()).unwrap();
    // SAFETY: `encode` has initialized the first `length_bytes`.
    #[allow(unsafe_code)]
    let bytes = unsafe { std::slice::from_raw_parts(slot.0.as_ptr().cast::<u8>(), length_bytes) };
    read(bytes)
}

fn there_and_back<M: Message>(message: &M) -> M {
    with_archive(message, |bytes| to_owned::<M>(access::<M>(bytes).unwrap()).unwrap())
}

fn task() -> Task {
    Task {
        path: "/usr/include/stdio.h".to_owned(),
        owner: Some(Box::new(Owner("root".to_owned(), 0))),
        steps: vec![
            Step::Wait,
            Step::Read("r".repeat(30), 5),
            Step::Write { to: vec![String::new(), "w".repeat(9)] },
        ],
        range: (1, u128::MAX),
        digest: [9; 32],
        r#type: 'ß',
    }
}

#[test]
fn structs_enums_and_what_they_contain_come_back_as_they_were_sent() {
    assert_eq!(there_and_back(&task()), task());
    assert_eq!(there_and_back(&Owner("x".repeat(100), 7)), Owner("x".repeat(100), 7));
    for step in task().steps {
        assert_eq!(there_and_back(&step), step);
    }
}

#[test]
fn a_unit_struct_is_a_message_of_no_bytes() {
    assert_eq!(with_archive(&Stop, <[u8]>::len), 0);
    assert_eq!(there_and_back(&Stop), Stop);
}

#[test]
fn fields_are_read_in_place() {
    with_archive(&task(), |bytes| {
        let task = access::<Task>(bytes).unwrap();
        assert_eq!(task.path.as_str(), "/usr/include/stdio.h");
        assert_eq!(task.owner.as_ref().unwrap().0.as_str(), "root");
        assert!(bytes.as_ptr_range().contains(&task.path.as_ptr()));
        let agent::ArchivedStep::Read(name, length) = &task.steps[1] else { panic!("another variant") };
        assert_eq!((name.len(), length.to_native()), (30, 5));
    });
}

#[test]
fn a_private_message_that_is_only_sent_needs_no_allow() {
    agent::send(drop);
}

#[test]
fn the_name_of_a_message_is_that_of_its_type() {
    assert_eq!(Task::NAME, "Task");
}

use fingerprints::*;

mod fingerprints {
    use super::{Fingerprint, Typed};

    macro_rules! each {
        ($($name:ident { $($item:tt)* })*) => {
            $(pub(super) mod $name {
                #[shoal_agent::message]
                #[allow(dead_code)]
                $($item)*
                pub(in super::super) const OF_T: super::Fingerprint = <T as super::Typed>::FINGERPRINT;
            })*
            pub(super) const ALL: &[(&str, Fingerprint)] = &[$((stringify!($name), $name::OF_T)),*];
        };
    }

    each! {
        original { pub(crate) struct T { a: u32, b: u32 } }
        renamed_field { pub(crate) struct T { a: u32, c: u32 } }
        reordered_fields { pub(crate) struct T { b: u32, a: u32 } }
        retyped_field { pub(crate) struct T { a: u32, b: i32 } }
        resized_field { pub(crate) struct T { a: u32, b: u64 } }
        added_field { pub(crate) struct T { a: u32, b: u32, c: () } }
        tuple { pub(crate) struct T(u32, u32); }
        unit { pub(crate) struct T; }
        empty { pub(crate) struct T {} }
        nested_original { pub(crate) struct T { a: super::original::T } }
        nested_renamed { pub(crate) struct T { a: super::renamed_field::T } }
        listed { pub(crate) struct T { a: Vec<u32>, b: u32 } }
        optional { pub(crate) struct T { a: Option<u32>, b: u32 } }
        variants { pub(crate) enum T { A, B } }
        renamed_variant { pub(crate) enum T { A, C } }
        reordered_variants { pub(crate) enum T { B, A } }
        added_variant { pub(crate) enum T { A, B, C } }
        discriminants { pub(crate) enum T { A = 4, B = 9 } }
        variant_with_tuple { pub(crate) enum T { A, B(u32) } }
        variant_with_fields { pub(crate) enum T { A, B { a: u32 } } }
        variant_with_renamed { pub(crate) enum T { A, B { b: u32 } } }
        variant_with_retyped { pub(crate) enum T { A, B { a: i32 } } }
        variant_field_moved { pub(crate) enum T { A { a: u32 }, B } }
    }

    // The same definition elsewhere, as in another program.
    pub(super) mod elsewhere {
        #[shoal_agent::message]
        #[allow(dead_code)]
        pub(crate) struct T {
            a: u32,
            b: u32,
        }
    }
}

#[test]
fn every_change_of_a_type_changes_its_fingerprint() {
    for (index, (name, fingerprint)) in ALL.iter().enumerate() {
        for (other, of_other) in &ALL[..index] {
            assert_ne!(fingerprint, of_other, "{name} and {other}");
        }
    }
}

#[test]
fn the_same_definition_in_another_program_has_the_same_fingerprint() {
    assert_eq!(original::OF_T, <elsewhere::T as Typed>::FINGERPRINT);
}

#[test]
fn another_name_is_another_type() {
    mod other {
        #[shoal_agent::message]
        #[allow(dead_code)]
        pub(super) struct Other {
            a: u32,
            b: u32,
        }
    }
    assert_ne!(original::OF_T, <other::Other as Typed>::FINGERPRINT);
}
