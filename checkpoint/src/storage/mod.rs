//! How durable things are named ([`paths`]), wrapped ([`envelope`]), tried again ([`retry`]), and whether a store is fit
//! for them ([`probe`]).

pub mod envelope;
pub mod paths;
pub mod probe;
pub mod retry;
