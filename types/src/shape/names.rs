//! Shapes without the names of types, by which an older version of a type is known again: in the program that migrates it, it
//! has to have another name than the newer one. Fields and variants keep theirs.

use super::{Fields, Shape, Variant};

impl Shape {
    /// This shape with no struct and no enum named. Bytes of the one are bytes of the other.
    #[must_use]
    pub fn without_type_names(&self) -> Self {
        let of = |shape: &Self| Box::new(shape.without_type_names());
        match self {
            Self::Option(inner) => Self::Option(of(inner)),
            Self::Seq(inner) => Self::Seq(of(inner)),
            Self::Map(key, value) => Self::Map(of(key), of(value)),
            Self::Tuple(parts) => Self::Tuple(all(parts)),
            Self::Struct { fields, .. } => {
                Self::Struct { name: String::new(), fields: fields.without_type_names() }
            }
            Self::Enum { variants, open, .. } => {
                let variants = variants.iter().map(|variant| Variant {
                    fields: variant.fields.without_type_names(),
                    ..variant.clone()
                });
                Self::Enum { name: String::new(), variants: variants.collect(), open: *open }
            }
            other => other.clone(),
        }
    }
}

impl Fields {
    fn without_type_names(&self) -> Self {
        match self {
            Self::Newtype(inner) => Self::Newtype(Box::new(inner.without_type_names())),
            Self::Tuple(parts) => Self::Tuple(all(parts)),
            Self::Named(fields) => Self::Named(
                fields.iter().map(|(name, shape)| (name.clone(), shape.without_type_names())).collect(),
            ),
            Self::Unit | Self::Unknown => self.clone(),
        }
    }
}

fn all(parts: &[Shape]) -> Vec<Shape> {
    parts.iter().map(Shape::without_type_names).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    mod old {
        use serde::Deserialize;

        #[derive(Deserialize)]
        pub(super) enum Kind {
            #[expect(dead_code)]
            Small(u8),
        }
    }

    #[derive(Deserialize)]
    #[expect(dead_code)]
    enum KindV1 {
        Small(u8),
    }

    #[derive(Deserialize)]
    #[expect(dead_code)]
    struct Order<K> {
        kind: Option<Vec<K>>,
        by: std::collections::BTreeMap<(u8, char), K>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code)]
    struct OrderV1<K> {
        kind: Option<Vec<K>>,
        by: std::collections::BTreeMap<(u8, char), K>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code)]
    struct OrderV2<K> {
        kinds: Option<Vec<K>>,
        by: std::collections::BTreeMap<(u8, char), K>,
    }

    #[test]
    fn only_the_names_of_types_go() {
        let stored = Shape::trace::<Order<old::Kind>>();
        let [same, other] = [Shape::trace::<OrderV1<KindV1>>(), Shape::trace::<OrderV2<KindV1>>()];
        assert!(Shape::diff(&same, &stored).is_some());
        let stored = stored.without_type_names();
        assert_eq!(Shape::diff(&same.without_type_names(), &stored), None);
        let difference = Shape::diff(&other.without_type_names(), &stored);
        assert!(difference.is_some_and(|it| it.contains("kinds")), "a field has another name");
    }
}
