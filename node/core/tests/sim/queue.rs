//! What is due, in the order of its time; of one time, in the order in which it came.

use p2p_core::Moment;
use std::{cmp::Reverse, collections::BinaryHeap};

/// The heap moves its entries about, so they are small; what is due lies beside it.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<(Moment, u64, u32)>>,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), sequence: 0 }
    }

    pub fn push(&mut self, at: Moment, item: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            self.items.len() as u32 - 1
        });
        self.items[place as usize] = Some(item);
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, place)));
    }

    /// Takes the next one that is due until `end`.
    pub fn pop(&mut self, end: Moment) -> Option<(Moment, T)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > end {
            return None;
        }
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        let item = self.items[place as usize].take().expect("it waits");
        Some((at, item))
    }
}
