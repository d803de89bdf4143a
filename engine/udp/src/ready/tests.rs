//! All sequences of pushes and pops, against a plain list.

use super::Ready;
use crate::depth::depth;

const IDS: u32 = 3;

#[test]
fn each_waits_at_most_once_and_in_order() {
    // Pushing each id, and popping.
    let (operations, depth) = (IDS + 1, depth(7));
    for sequence in 0..operations.pow(depth) {
        let (mut ready, mut model) = (Ready::default(), Vec::new());
        for at in 0..depth {
            match sequence / operations.pow(at) % operations {
                IDS => {
                    let first = (!model.is_empty()).then(|| model.remove(0));
                    assert_eq!(ready.pop(), first);
                }
                id => {
                    if !model.contains(&id) {
                        model.push(id);
                    }
                    ready.push(id);
                }
            }
            assert_eq!((ready.len(), ready.is_empty()), (model.len(), model.is_empty()));
        }
        assert_eq!(std::iter::from_fn(|| ready.pop()).collect::<Vec<_>>(), model);
    }
}
