//! All of fairness: slots, credit, turn order.
