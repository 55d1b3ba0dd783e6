//! What can be set, and where: code < `tidegate.toml` < environment (`TIDEGATE_...`) < command line. Every setting has
//! one name, one parser and one place ([`settings::SETTINGS`]); the four layers only bring texts.

mod args;
mod layers;
mod names;
pub mod settings;
#[cfg(test)]
mod tests;
mod values;

pub use args::{JobArgs, VERSION};
pub use layers::resolve;
pub use settings::{Backend, RestAddress, Settings};
