//! The way from a type to one of its fields, as an error message names it: `orders[].price`, `kind::Paid.at`.

/// Where in a type something stands.
#[derive(Default)]
pub(super) struct Path(String);

impl Path {
    /// Runs `then` one step further in.
    pub(super) fn within<T>(&mut self, step: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.0.len();
        self.0.push_str(step);
        let result = then(self);
        self.0.truncate(len);
        result
    }

    /// Runs `then` inside a field or part.
    pub(super) fn field<T>(&mut self, name: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let dot = if self.0.is_empty() { "" } else { "." };
        self.within(&format!("{dot}{name}"), then)
    }

    /// Runs `then` inside a variant.
    pub(super) fn variant<T>(&mut self, name: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        self.within(&format!("::{name}"), then)
    }

    /// "field `a.b` ", or "the type " for the whole.
    pub(super) fn subject(&self) -> String {
        if self.0.is_empty() { "the type ".into() } else { format!("field `{}` ", self.0) }
    }

    /// "field `a.b`: ", or nothing for the whole.
    pub(super) fn prefix(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("field `{}`: ", self.0) }
    }
}
