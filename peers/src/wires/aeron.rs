//! Aeron IPC through rusteron: exclusive publications, claimed in the log where a message fits a fragment and offered where it
//! does not, polled images; the C driver in a process of its own, as Aeron has it. It has no wake-up: where others sleep it
//! uses its back-off idle strategy.

use crate::wire::{Mode, Spinning, Wire, peers_own};
use rusteron_client::{
    Aeron as Client, AeronContext, AeronExclusivePublication, AeronFragmentClosureAssembler, AeronHeader,
    AeronSubscription, BackoffIdleStrategy, Handlers, IdleStrategy,
};
use rusteron_media_driver::{AeronDriver, AeronDriverContext};
use std::ffi::CString;
use std::io;
use std::time::{Duration, Instant};

/// Messages that are taken at once.
const LIMIT: u64 = 10;
/// How long meeting may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest fragment of a channel within a host.
const MTU_BYTES: usize = 65504;

/// One end. The client is declared last: what it made goes before it.
pub struct Aeron {
    publication: AeronExclusivePublication,
    subscription: AeronSubscription,
    assembler: AeronFragmentClosureAssembler,
    claimed_max: usize,
    buffer: Vec<u8>,
    idle: Option<BackoffIdleStrategy>,
    spinning: Spinning,
    _client: Client,
}

impl Aeron {
    /// Opens a stream each way, and waits until the other end has done so.
    ///
    /// # Errors
    /// What Aeron says.
    pub fn open(driver: &str, pair: u64, first: bool, bytes: usize, mode: Mode) -> io::Result<Self> {
        let context = AeronContext::new().map_err(peers_own)?;
        let folder = CString::new(driver).map_err(peers_own)?;
        context.set_dir(&folder).map_err(peers_own)?;
        let client = Client::new(&context).map_err(peers_own)?;
        client.start().map_err(peers_own)?;
        // A message may take an eighth of a term.
        let term_bytes = (8 * bytes.next_power_of_two()).max(1 << 20) * 2;
        let channel =
            CString::new(format!("aeron:ipc?mtu={MTU_BYTES}|term-length={term_bytes}")).map_err(peers_own)?;
        let stream = |first: bool| 2 * pair as i32 + i32::from(first);
        let publication = client
            .async_add_exclusive_publication(&channel, stream(first))
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(peers_own)?;
        let subscription = client
            .async_add_subscription(&channel, stream(!first), Handlers::NONE, Handlers::NONE)
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(peers_own)?;
        let until = Instant::now() + PATIENCE;
        while !publication.is_connected() || subscription.image_at_index(0).is_none() {
            if Instant::now() > until {
                return Err(io::Error::other("the ends did not meet"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Aeron {
            claimed_max: publication.max_payload_length().map_err(peers_own)?,
            assembler: AeronFragmentClosureAssembler::new().map_err(peers_own)?,
            publication,
            subscription,
            buffer: vec![0; bytes],
            idle: (mode == Mode::Parked).then(BackoffIdleStrategy::new),
            spinning: Spinning::default(),
            _client: client,
        })
    }

    fn idle(&mut self) {
        match &mut self.idle {
            Some(idle) => idle.idle(0),
            None => self.spinning.between(),
        }
    }

    fn worked(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.idle(1);
        }
    }
}

impl Wire for Aeron {
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<()> {
        if bytes <= self.claimed_max {
            loop {
                match self.publication.try_claim_owned(bytes) {
                    Ok(mut claim) => {
                        fill(&mut claim.data()[..bytes]);
                        return claim.commit().map(drop).map_err(peers_own);
                    }
                    Err(error) if error.is_retryable() => self.spinning.between(),
                    Err(error) => return Err(peers_own(error)),
                }
            }
        }
        fill(&mut self.buffer);
        loop {
            match self.publication.offer(&self.buffer) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => self.spinning.between(),
                Err(error) => return Err(peers_own(error)),
            }
        }
    }

    fn receive(&mut self, limit: u64, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
        let whole = self.buffer.len() <= self.claimed_max;
        loop {
            let mut count = 0;
            if whole {
                let mut each = |message: &[u8], _: AeronHeader| {
                    look(message);
                    count += 1;
                };
                self.subscription.poll_fn(&mut each, limit.min(LIMIT) as usize).map_err(peers_own)?;
            } else {
                // A fragment at a time, so that no more messages come than are asked for.
                let mut seen = Seen { look: &mut look, count: 0 };
                self.assembler.poll(&self.subscription, &mut seen, Seen::one, 1).map_err(peers_own)?;
                count = seen.count;
            }
            if count > 0 {
                self.worked();
                return Ok(count);
            }
            self.idle();
        }
    }
}

/// What an assembled message is shown to.
struct Seen<'a> {
    look: &'a mut dyn FnMut(&[u8]),
    count: u64,
}

impl Seen<'_> {
    fn one(seen: &mut Seen<'_>, message: &[u8], _: AeronHeader) {
        (seen.look)(message);
        seen.count += 1;
    }
}

/// Is the driver, in a folder: it never returns but with an error.
pub fn drive(folder: &str) -> io::Error {
    let run = || -> io::Result<()> {
        let context = AeronDriverContext::new().map_err(peers_own)?;
        let folder = CString::new(folder).map_err(peers_own)?;
        context.set_dir(&folder).map_err(peers_own)?;
        let driver = AeronDriver::new(&context).map_err(peers_own)?;
        driver.start(true).map_err(peers_own)?;
        loop {
            let worked = driver.main_do_work().map_err(peers_own)?;
            driver.main_idle_strategy(worked);
        }
    };
    run().err().unwrap_or_else(|| io::Error::other("it ended"))
}
