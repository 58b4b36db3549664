//! UNSAFE. iceoryx2 by publish and subscribe with loaned slices, which are written and read in place; nothing is dropped: a sender
//! waits for room. To sleep there is an event service beside it, whose listener is asked only when there is no message.

use crate::wire::{Mode, Spinning, Wire, peers_own};
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use std::io;

/// Bytes of the messages that may wait for a subscriber: as many as a lane of Shoal holds here.
const WAITING_BYTES: usize = 1 << 20;

/// One end. The node is declared last: ports go before it.
pub struct Iceoryx {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    bells: Option<(Notifier<ipc::Service>, Listener<ipc::Service>)>,
    _node: Node<ipc::Service>,
}

impl Iceoryx {
    /// Opens both ends' services, its own to send and the other's to receive.
    ///
    /// # Errors
    /// What iceoryx2 says.
    pub fn open(folder: &std::path::Path, names: [&str; 2], bytes: usize, mode: Mode) -> io::Result<Self> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        // What it names in shared memory is told from that of others, and can be found to be removed.
        let folder_name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        config.global.prefix = FileName::new(format!("{folder_name}_").as_bytes()).map_err(peers_own)?;
        let root = folder.join("iceoryx2");
        std::fs::create_dir_all(&root)?;
        config.global.set_root_path(&Path::new(root.to_string_lossy().as_bytes()).map_err(peers_own)?);
        let node = NodeBuilder::new()
            .config(&config)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()
            .map_err(peers_own)?;
        let service = |name: &str| {
            let name = ServiceName::new(name).map_err(peers_own)?;
            node.service_builder(&name)
                .publish_subscribe::<[u8]>()
                .max_publishers(1)
                .max_subscribers(1)
                .max_nodes(2)
                .history_size(0)
                .enable_safe_overflow(false)
                .subscriber_max_buffer_size((WAITING_BYTES / bytes).clamp(4, 1024))
                .payload_alignment(Alignment::ALIGN_64)
                .open_or_create()
                .map_err(peers_own)
        };
        let [own, other] = names;
        let publisher = service(own)?
            .publisher_builder()
            .initial_max_slice_len(bytes)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(peers_own)?;
        let subscriber = service(other)?.subscriber_builder().create().map_err(peers_own)?;
        let event = |name: &str| {
            let name = ServiceName::new(&format!("{name}-bell")).map_err(peers_own)?;
            node.service_builder(&name).event().open_or_create().map_err(peers_own)
        };
        let bells = match mode {
            Mode::Spin => None,
            Mode::Parked => Some((
                event(own)?.notifier_builder().create().map_err(peers_own)?,
                event(other)?.listener_builder().create().map_err(peers_own)?,
            )),
        };
        Ok(Iceoryx { publisher, subscriber, bells, _node: node })
    }
}

impl Wire for Iceoryx {
    #[inline]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let mut sample = self.publisher.loan_slice_uninit(bytes).map_err(peers_own)?;
        let slice = sample.payload_mut();
        // SAFETY: the slice is lent to us alone until it is sent; it is memory that the kernel gave zeroed, so each of its bytes
        // has a value.
        fill(unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast::<u8>(), slice.len()) });
        // SAFETY: `fill` has written all of it.
        let got = unsafe { sample.assume_init() }.send().map_err(peers_own)?;
        if got != 1 {
            return Err(io::Error::other(format!("it went to {got} subscribers")));
        }
        match &self.bells {
            Some((notifier, _)) => notifier.notify().map(drop).map_err(peers_own),
            None => Ok(()),
        }
    }

    #[inline]
    fn receive(&mut self, _limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut spinning = Spinning::default();
        loop {
            if let Some(sample) = self.subscriber.receive().map_err(peers_own)? {
                look(sample.payload());
                return Ok(1);
            }
            match &self.bells {
                Some((_, listener)) => drop(listener.blocking_wait(|_| {}).map_err(peers_own)?),
                None => spinning.between(),
            }
        }
    }
}
