//! A reader of one of the worker's lanes: the runtime's own consumer, which compares every byte with the story.

use super::life::Quiet;
use super::stage::{WORKER, sink_shape};
use super::story::Row;
use shoal_runtime::Region;
use shoal_runtime::board::Board;
use shoal_runtime::consumer::{Consumer, InputEnd, Polled};
use shoal_runtime::desk::Desk;
use shoal_runtime::doorbell::Doorbell;
use shoal_runtime::layout::SegmentShape;
use shoal_runtime::links::{Link, Links, Neighbour};
use shoal_runtime::mark::Place;
use std::sync::Arc;

/// A reader.
pub struct Sink {
    /// Its own segment.
    pub own: Region,
    /// What wakes it.
    pub doorbell: Doorbell,
    consumer: Consumer,
    links: Links,
    acked: Place,
}

impl Sink {
    /// A reader of `lane` over its own segment, which the worker's incarnations are introduced to later.
    pub fn new(
        own: Region,
        doorbell: Doorbell,
        board: Board,
        worker: Arc<SegmentShape>,
        lane: usize,
    ) -> Self {
        let links = Links::new(board, vec![Neighbour::new(WORKER, worker.clone(), true)]);
        let end = InputEnd { neighbour: 0, lane, share: (0, 1) };
        let consumer = Consumer::open(own.clone(), &sink_shape(), 0, end, worker);
        let acked = consumer.at();
        Sink { own, doorbell, consumer, links, acked }
    }

    /// Takes over incarnations of the worker, and what the board says by now.
    ///
    /// # Errors
    /// The board names an incarnation that was not handed over.
    pub fn meet(&mut self, links: Vec<Link>) -> Result<(), String> {
        self.links.add_all(links);
        self.links.sync(&mut Quiet).map_err(|e| e.to_string())?;
        self.consumer.sync(&mut self.links);
        Ok(())
    }

    /// Where it stands.
    pub fn at(&self) -> Place {
        self.consumer.at()
    }

    /// Where its published cursor stands.
    pub fn acked(&self) -> Place {
        self.acked
    }

    /// Takes everything that there is, comparing each byte; when `confirming`, also what only marks and records tell.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn take(&mut self, row: &Row, confirming: bool) -> Result<(), String> {
        self.take_with(confirming, |number, bytes| match row.message(number) {
            None => Err(format!("message {number} was never to be sent")),
            Some(message) if bytes != message.payload => {
                Err(format!("message {number} has other bytes than were to be sent"))
            }
            Some(_) => Ok(()),
        })
    }

    /// Takes everything that there is, and shows each message to `see`; when `confirming`, also what only marks and records tell.
    ///
    /// # Errors
    /// What was wrong, in words.
    pub fn take_with(
        &mut self,
        confirming: bool,
        mut see: impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let mut took = false;
            loop {
                match self.consumer.poll() {
                    Polled::Frame(frame) => {
                        let (sources, cursor) = self.consumer.split();
                        let number = frame.at.sequence;
                        if !sources.lease(&frame) {
                            return Err(format!("message {number} cannot be leased"));
                        }
                        see(number, sources.leased(&frame))?;
                        cursor.advance(&frame);
                        took = true;
                    }
                    Polled::Empty => break,
                    Polled::Fault(fault) => {
                        return Err(format!("a reader accuses {}: {}", fault.incarnation, fault.what));
                    }
                }
            }
            if !confirming {
                return Ok(());
            }
            match self.consumer.confirm() {
                Ok(false) => return Ok(()),
                Ok(true) if took || self.polls_something() => {}
                Ok(true) => {
                    return Err("its producer stands still, yet there is always something to come".into());
                }
                Err(fault) => return Err(format!("a reader accuses {}: {}", fault.incarnation, fault.what)),
            }
        }
    }

    fn polls_something(&mut self) -> bool {
        !matches!(self.consumer.poll(), Polled::Empty)
    }

    /// Publishes its cursor.
    pub fn ack(&mut self) {
        let (_, cursor) = self.consumer.split();
        cursor.publish();
        self.acked = self.consumer.at();
    }

    /// Says that it sleeps, or no longer.
    pub fn park(&self, parked: bool) {
        let desk = Desk::new(self.own.clone());
        if parked { desk.parked().set() } else { desk.parked().clear() }
    }
}
