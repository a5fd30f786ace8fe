//! What is said of a reply that no order explains.

use super::linear::{Place, Search};
use super::op::Seen;
use super::request::Request;

impl Search {
    pub(super) fn accuse(&self, places: &[Place], due: usize) -> String {
        let op = &self.ops[due];
        let mut text = format!(
            "no order explains {}\n  it {}",
            self.show(due),
            "could have found:\n"
        );
        for place in places.iter().take(5) {
            let state = &self.states[place.state as usize];
            text.push_str(&format!("    {state} after {:b}\n", place.done));
        }
        text.push_str("  under way with it:\n");
        for &index in self.active.iter().filter(|&&index| index != due) {
            text.push_str(&format!("    {}\n", self.show(index)));
        }
        text.push_str("  before it:\n");
        let before: Vec<usize> = (0..self.ops.len())
            .filter(|&n| self.ops[n].until < op.until)
            .collect();
        for &index in before.iter().rev().take(8) {
            text.push_str(&format!("    {}\n", self.show(index)));
        }
        text
    }

    fn show(&self, index: usize) -> String {
        let op = &self.ops[index];
        let seen = match &op.seen {
            Seen::Reply(reply) => format!(
                "heard {:?}",
                reply[..reply.len().min(80)].escape_ascii().to_string()
            ),
            other => format!("{other:?}"),
        };
        let mut request = Request::clone(&op.request);
        request.keys = request.keys.get(op.index).cloned().into_iter().collect();
        let request = super::request::show(&request);
        format!(
            "[{}] client {} {request} asked {} until {}: {seen}",
            self.slots[index] as isize, op.client, op.asked, op.until
        )
    }
}
