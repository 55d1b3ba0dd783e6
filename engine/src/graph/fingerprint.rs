//! Whether two processes have built the same job: a digest of all that a plan says, closures excepted. A TaskManager
//! whose plan differs from the JobManager's is refused.

use types::{Digest, DigestBuilder};

use super::{
    logical::Vertex,
    physical::{Chain, Plan},
};

impl Plan {
    /// The digest of names, uids, kinds, edges, parallelisms and the shapes of keys and states.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let mut digest = Parts(DigestBuilder::default());
        digest.text(&self.job_name);
        digest.number(self.max_parallelism.0.into());
        for vertex in &self.graph.vertices {
            digest.vertex(vertex);
        }
        for chain in &self.chains {
            digest.chain(chain);
        }
        digest.0.finish()
    }
}

/// Every part is preceded by its length, so that no two lists of parts run into the same bytes.
struct Parts(DigestBuilder);

impl Parts {
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn vertex(&mut self, vertex: &Vertex) {
        self.text(vertex.kind_name);
        self.text(vertex.name.as_deref().unwrap_or_default());
        self.text(vertex.uid.as_ref().map_or("", |uid| uid.as_str()));
        self.number(vertex.formerly.len() as u64);
        vertex.formerly.iter().for_each(|uid| self.text(uid.as_str()));
        self.bytes(&vertex.key_shape);
        self.number(vertex.states.len() as u64);
        for state in &vertex.states {
            self.text(&state.name);
            self.text(state.kind.name());
            self.text(&state.codec);
            self.bytes(&state.shape.to_bytes());
            self.bytes(&state.map_key.as_ref().map(types::Shape::to_bytes).unwrap_or_default());
            self.shapes(vertex.migrations.of_state(&state.name));
        }
        self.number(vertex.lists.len() as u64);
        for list in &vertex.lists {
            self.text(&list.name);
            self.text(&format!("{:?}", list.redistribution));
            self.bytes(&list.shape.to_bytes());
            self.shapes(&list.older);
        }
        self.number(vertex.sides.len() as u64);
        vertex.sides.iter().for_each(|side| self.text(&side.name));
    }

    fn shapes(&mut self, shapes: &[types::Shape]) {
        self.number(shapes.len() as u64);
        shapes.iter().for_each(|shape| self.bytes(&shape.to_bytes()));
    }

    fn chain(&mut self, chain: &Chain) {
        self.number(chain.parallelism.into());
        self.number(chain.vertices.len() as u64);
        chain.vertices.iter().for_each(|vertex| self.number(vertex.0 as u64));
        self.number(chain.outputs.len() as u64);
        for output in &chain.outputs {
            self.text(&format!(
                "{} {:?} {} {} {}",
                output.position,
                output.port,
                output.to,
                output.input,
                output.edge.partitioning.name()
            ));
        }
    }
}
