//! The only file that names atomics: core's, or loom's with the feature `loom`.
//!
//! Every shared word is an `AtomicU64`, so that one model covers all of them. Every ordering that is stronger than Relaxed
//! has a [`Site`], so that `scripts/loom --weakened` can take them away one by one and see a model fail.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use modelled::{AtomicU64, Ordering};
#[cfg(loom)]
pub use modelled::{Death, is_weakened};

/// Tells the processor that this is a spin loop.
#[inline]
pub fn spin_hint() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// Declares [`Site`] and the list of all sites in one place.
macro_rules! sites {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A place in the code with an ordering that something depends on; `docs/memory-ordering.md` has a row for each pair.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[expect(missing_docs, reason = "documented where they are used, and in docs/memory-ordering.md")]
        pub enum Site { $($(#[$doc])* $name,)* }

        #[cfg(loom)]
        const SITES: &[Site] = &[$(Site::$name,)*];
    };
}

sites! {
    CommitWordStore,
    CommitWordLoad,
    FactsLoad,
    TailStore,
    CursorStore,
    MarkLoad,
    CursorLoad,
    MarkSequenceStore,
    MarkSequenceLoad,
    RecordFence,
    RecordReadFence,
    CommitStore,
    CommitLoad,
    FloorFence,
    CopyFence,
    PublishFence,
    ParkFence,
    LeftFence,
    EpochStore,
    EpochLoad,
    AgentWordStore,
    AgentWordLoad,
    VerdictStore,
    VerdictLoad,
    VerdictFence,
    VerdictReadFence,
    ClaimLoad,
    ClaimSwap,
    EndStore,
    EndLoad,
    FrontierStore,
    FrontierLoad,
    FrontierSwap,
    ReturnedStore,
    ReturnedLoad,
    ReuseFence,
    // Not an ordering but a step of the protocol that is left out: see `left_out`.
    LookBeforeSleep,
    EpochLook,
    WantRing,
}

/// Whether a model leaves out a step of the protocol, to show that it would notice.
#[inline(always)]
pub(crate) fn left_out(site: Site) -> bool {
    #[cfg(loom)]
    return is_weakened(site);
    #[cfg(not(loom))]
    {
        let _ = site;
        false
    }
}

/// The ordering of a site: as given, but Relaxed in a model that weakens the site.
#[inline(always)]
pub(crate) fn ordering(site: Site, ordering: Ordering) -> Ordering {
    #[cfg(loom)]
    if is_weakened(site) {
        return Ordering::Relaxed;
    }
    let _ = site;
    ordering
}

#[cfg(not(loom))]
mod asymmetric {
    use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    static REGISTERED: AtomicBool = AtomicBool::new(false);

    /// Whether this kernel can fence other processes on behalf of one.
    pub fn can_fence_peers() -> bool {
        let both = MembarrierQuery::GLOBAL_EXPEDITED | MembarrierQuery::REGISTER_GLOBAL_EXPEDITED;
        membarrier_query().contains(both)
    }

    /// From here on whoever parks fences this process too, and this process's publishing needs no fence of its own.
    ///
    /// All processes of a swarm register, or none: the supervisor decides.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn let_peers_fence() -> io::Result<()> {
        membarrier(MembarrierCommand::RegisterGlobalExpedited)?;
        // Relaxed: one thread publishes, and it is this one.
        REGISTERED.store(true, Ordering::Relaxed);
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn registered() -> bool {
        REGISTERED.load(Ordering::Relaxed)
    }

    #[cold]
    pub(crate) fn fence_peers() {
        let fenced = membarrier(MembarrierCommand::GlobalExpedited);
        assert!(fenced.is_ok(), "a kernel that has registered this process fences its peers");
    }
}

#[cfg(not(loom))]
pub use asymmetric::{can_fence_peers, let_peers_fence};

/// The publisher's half of a store-load fence ([`fence_of_sleeper`] is the other): a word that was stored before it and a peer's word
/// that is loaded after it. In a registered process it is free, because the sleeper fences for both.
#[inline(always)]
pub(crate) fn fence_of_publisher(site: Site) {
    #[cfg(not(loom))]
    if asymmetric::registered() {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        return;
    }
    fence(site, Ordering::SeqCst);
}

/// Whether a sleeper fences for its publishers, so that it may leave that to them for a while. In a model it always may.
#[inline]
pub(crate) fn sleeper_fences() -> bool {
    #[cfg(loom)]
    return true;
    #[cfg(not(loom))]
    asymmetric::registered()
}

/// The sleeper's half: every running thread of every registered process passes a fence, too.
#[inline]
pub(crate) fn fence_of_sleeper(site: Site) {
    fence(site, Ordering::SeqCst);
    #[cfg(not(loom))]
    if asymmetric::registered() {
        asymmetric::fence_peers();
    }
}

/// The fence of a site: none in a model that weakens the site.
#[inline(always)]
pub(crate) fn fence(site: Site, ordering: Ordering) {
    #[cfg(loom)]
    if !is_weakened(site) {
        loom::sync::atomic::fence(ordering);
    }
    #[cfg(not(loom))]
    core::sync::atomic::fence(ordering);
    let _ = site;
}

#[cfg(loom)]
mod modelled {
    use super::{SITES, Site};
    use core::sync::atomic::AtomicU64 as CoreU64;
    pub(crate) use loom::sync::atomic::Ordering;
    use std::sync::{Arc, OnceLock};

    /// Whether the environment names this site, or deliberate bug, in `SHOAL_WEAKEN`.
    pub fn is_weakened(site: Site) -> bool {
        static NAMED: OnceLock<Option<String>> = OnceLock::new();
        static INDEX: OnceLock<Option<usize>> = OnceLock::new();
        let index = INDEX.get_or_init(|| {
            let named = NAMED.get_or_init(|| std::env::var("SHOAL_WEAKEN").ok()).as_ref()?;
            let found = SITES.iter().position(|s| format!("{s:?}") == *named);
            Some(found.unwrap_or_else(|| panic!("SHOAL_WEAKEN={named} names no site of sync.rs")))
        });
        *index == Some(site as usize)
    }

    /// How many more stores a segment's writer lives for.
    #[derive(Clone)]
    pub struct Death {
        left: Arc<CoreU64>,
    }

    impl Death {
        /// A death before store number `stores` (from 0); `u64::MAX`: never.
        pub fn before_store(stores: u64) -> Self {
            Death { left: Arc::new(CoreU64::new(stores)) }
        }

        /// Whether the writer is dead.
        pub fn came(&self) -> bool {
            self.left.load(Ordering::Relaxed) == 0
        }

        fn allows_a_store(&self) -> bool {
            let left = self.left.load(Ordering::Relaxed);
            self.left.store(left.saturating_sub(u64::from(left != u64::MAX)), Ordering::Relaxed);
            left > 0
        }
    }

    /// A shared word: loom's, or a plain one where the protocol depends on nothing (counters, what is for show).
    pub(crate) struct AtomicU64 {
        word: Word,
        death: Death,
    }

    enum Word {
        Modelled(loom::sync::atomic::AtomicU64),
        Plain(CoreU64),
    }

    impl AtomicU64 {
        pub(crate) fn modelled(value: u64, death: Death) -> Self {
            AtomicU64 { word: Word::Modelled(loom::sync::atomic::AtomicU64::new(value)), death }
        }

        pub(crate) fn plain(value: u64, death: Death) -> Self {
            AtomicU64 { word: Word::Plain(CoreU64::new(value)), death }
        }

        #[track_caller]
        pub(crate) fn load(&self, ordering: Ordering) -> u64 {
            match &self.word {
                Word::Modelled(word) => word.load(ordering),
                Word::Plain(word) => word.load(Ordering::Relaxed),
            }
        }

        #[track_caller]
        pub(crate) fn store(&self, value: u64, ordering: Ordering) {
            match &self.word {
                Word::Modelled(word) if self.death.allows_a_store() => word.store(value, ordering),
                Word::Plain(word) if !self.death.came() => word.store(value, Ordering::Relaxed),
                Word::Modelled(_) | Word::Plain(_) => {}
            }
        }

        /// In claim tables only, which have several writers and no death of their own: models let a member stop between calls.
        #[track_caller]
        pub(crate) fn compare_exchange(
            &self,
            from: u64,
            to: u64,
            won: Ordering,
            lost: Ordering,
        ) -> Result<u64, u64> {
            self.shared().compare_exchange(from, to, won, lost)
        }

        #[track_caller]
        pub(crate) fn fetch_max(&self, value: u64, ordering: Ordering) -> u64 {
            self.shared().fetch_max(value, ordering)
        }

        #[track_caller]
        pub(crate) fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
            self.shared().fetch_add(value, ordering)
        }

        fn shared(&self) -> &loom::sync::atomic::AtomicU64 {
            match &self.word {
                Word::Modelled(word) => word,
                Word::Plain(_) => unreachable!("words of several writers are modelled"),
            }
        }
    }
}
