//! What can be set, and where: code < `tidegate.toml` < environment (`TIDEGATE_...`) < command line. Every setting has
//! one name, one parser and one place ([`settings::SETTINGS`]); the four layers only bring texts.

mod args;
mod layers;
pub mod settings;
#[cfg(test)]
mod tests;
mod values;

pub use args::JobArgs;
pub use layers::resolve;
pub use settings::{Backend, RestAddress, Settings};
