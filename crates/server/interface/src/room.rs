//! Room at a door: who may stay, and who has to make way.
//!
//! Every connection comes as a stranger and becomes known once a guard has accepted a credential that came over
//! it. The known share one bound and stay. Strangers share a small one, in the order in which they came: when it is
//! full the oldest makes way, so none keeps a newcomer out by having been there first, and no number of them takes
//! room from the known. This counts and decides; closing is up to whoever serves the connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The room of one door.
#[derive(Debug)]
pub(crate) struct Room {
    /// For logs.
    door: &'static str,
    most_known: usize,
    most_strangers: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: usize,
    /// By arrival. A token is cancelled when its stranger has to make way.
    strangers: BTreeMap<u64, CancellationToken>,
    arrived: u64,
    sent_away: u64,
}

/// There are as many known connections as the door may have, or this one had to make way meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the server has no room for another connection")]
pub(crate) struct NoRoom;

/// Why a stranger is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overstay {
    /// Others came, and this one was the oldest.
    Oldest,
    /// It asked nothing for too long.
    Idle,
    /// It stayed too long without a credential, whatever it asked.
    Life,
}

impl Room {
    pub(crate) fn new(door: &'static str, most_known: usize, most_strangers: usize) -> Arc<Self> {
        Arc::new(Self {
            door,
            most_known,
            most_strangers,
            state: Mutex::default(),
        })
    }

    /// A place for a connection that has just come. The oldest stranger makes way if that is needed.
    pub(crate) fn enter(self: &Arc<Self>) -> Arc<Place> {
        let makes_way = CancellationToken::new();
        let mut state = self.state();
        if state.strangers.len() >= self.most_strangers
            && let Some((_, oldest)) = state.strangers.pop_first()
        {
            oldest.cancel();
            state.sent_away += 1;
            // A flood is seen in the log and does not fill it.
            if state.sent_away.is_power_of_two() {
                tracing::warn!(
                    door = self.door,
                    so_far = state.sent_away,
                    "connections without credentials make way for newer ones"
                );
            }
        }
        let number = state.arrived;
        state.arrived += 1;
        state.strangers.insert(number, makes_way.clone());
        Arc::new(Place {
            room: Arc::clone(self),
            number,
            makes_way,
            known: AtomicBool::new(false),
            open: watch::Sender::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    number: u64,
    makes_way: CancellationToken,
    known: AtomicBool,
    /// How many requests are open. Counted for strangers only.
    open: watch::Sender<usize>,
}

impl Place {
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Makes the connection a known one. Once it is, it stays so.
    ///
    /// # Errors
    /// [`NoRoom`]; it is a stranger as before then.
    pub(crate) fn become_known(&self) -> Result<(), NoRoom> {
        let mut state = self.room.state();
        if self.is_known() {
            return Ok(());
        }
        if state.known >= self.room.most_known || state.strangers.remove(&self.number).is_none() {
            return Err(NoRoom);
        }
        state.known += 1;
        self.known.store(true, Ordering::Release);
        Ok(())
    }

    /// Counts a request as open until the guard is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> OpenRequest {
        self.open.send_modify(|open| *open += 1);
        OpenRequest(Arc::clone(self))
    }

    /// How many requests are open that began when the connection was not known.
    pub(crate) fn open_requests(&self) -> usize {
        *self.open.borrow()
    }

    /// Ends when the connection is to be closed: never once it is known; else when it has to make way, has had no
    /// open request for `idle`, or is there for `life`.
    pub(crate) async fn overstays(&self, idle: Duration, life: Option<Duration>) -> Overstay {
        let lives = async {
            match life {
                Some(life) => tokio::time::sleep(life).await,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            biased;
            () = self.makes_way.cancelled() => Overstay::Oldest,
            () = self.is_idle_for(idle) => Overstay::Idle,
            () = lives => Overstay::Life,
        };
        if self.is_known() {
            std::future::pending().await
        }
        why
    }

    async fn is_idle_for(&self, limit: Duration) {
        let mut open = self.open.subscribe();
        loop {
            // The sender is `self`, so it is there.
            let _ = open.wait_for(|open| *open == 0).await;
            tokio::select! {
                biased;
                _ = open.changed() => {}
                () = tokio::time::sleep(limit) => return,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.state();
        if self.is_known() {
            state.known -= 1;
        } else {
            state.strangers.remove(&self.number);
        }
    }
}

/// A request that is open.
#[derive(Debug)]
pub(crate) struct OpenRequest(Arc<Place>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    /// Whether a place has to be given up now.
    fn overstays(place: &Place) -> Option<Overstay> {
        place.overstays(LONG, None).now_or_never()
    }

    #[tokio::test]
    async fn the_oldest_stranger_makes_way_and_the_known_stay() {
        let room = Room::new("test", 2, 3);
        let known = room.enter();
        known.become_known().expect("room");
        let places: Vec<_> = (0..5).map(|_| room.enter()).collect();
        let gone: Vec<_> = places.iter().map(|place| overstays(place)).collect();
        let oldest = Some(Overstay::Oldest);
        assert_eq!(gone, [oldest, oldest, None, None, None]);
        assert_eq!(overstays(&known), None);
        assert_eq!(places[0].become_known(), Err(NoRoom), "it is being closed");
        // Who has become known, or has gone, makes no one else go.
        places[2].become_known().expect("room");
        drop(places.into_iter().nth(3));
        let next: Vec<_> = (0..3).map(|_| room.enter()).collect();
        assert!(next.iter().all(|place| overstays(place).is_none()));
    }

    #[tokio::test]
    async fn the_known_are_bounded_and_give_their_room_back() {
        let room = Room::new("test", 1, 3);
        let (one, two) = (room.enter(), room.enter());
        one.become_known().expect("room");
        one.become_known().expect("it is known already");
        assert_eq!(two.become_known(), Err(NoRoom));
        assert_eq!(overstays(&two), None, "it may try again");
        drop(one);
        two.become_known().expect("room");
        assert_eq!(room.state().strangers.len(), 0);
        drop(two);
        assert_eq!(room.state().known, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_idle_only_between_requests() {
        let room = Room::new("test", 1, 3);
        let (place, idle) = (room.enter(), Duration::from_secs(30));
        let start = tokio::time::Instant::now();
        let asks = async {
            let request = place.request();
            tokio::time::sleep(idle * 2).await;
            drop(request);
            tokio::time::sleep(idle / 2).await;
            drop(place.request());
        };
        let (why, ()) = tokio::join!(place.overstays(idle, None), asks);
        assert_eq!((why, start.elapsed()), (Overstay::Idle, idle * 7 / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_strangers_life_ends_whatever_it_asks_and_that_of_the_known_does_not() {
        let room = Room::new("test", 1, 3);
        let (busy, known) = (room.enter(), room.enter());
        let _open = busy.request();
        known.become_known().expect("room");
        let life = Some(Duration::from_secs(60));
        assert_eq!(busy.overstays(LONG, life).await, Overstay::Life);
        let stays = tokio::time::timeout(LONG * 2, known.overstays(LONG, life)).await;
        assert!(stays.is_err());
    }
}
