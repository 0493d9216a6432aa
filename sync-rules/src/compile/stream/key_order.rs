//! The order of a bucket's parameters, which is part of its name: by a hash of the expressions, as PowerSync orders
//! them. Clients that move here keep their buckets' names.

use crate::{
    definition::ElementPart,
    sql_text::{Namer, write_sql},
};

use super::leaf::{Instances, StreamExpression, StreamLeaf};

const MASK: u32 = 0x1fff_ffff;
const INITIAL: u32 = 614_160_925;

/// A 29-bit hash over UTF-16 units.
struct Hasher(u32);

impl Hasher {
    fn add_text(&mut self, text: &str) {
        for unit in text.encode_utf16() {
            self.add(u32::from(unit));
        }
    }

    fn add(&mut self, value: u32) {
        let mut hash = (self.0 + value) & MASK;
        hash = (hash + ((hash & 0x7_ffff) << 10)) & MASK;
        self.0 = hash ^ (hash >> 6);
    }

    fn finish(self) -> u32 {
        let mut hash = (self.0 + ((self.0 & 0x3ff_ffff) << 3)) & MASK;
        hash ^= hash >> 11;
        (hash + ((hash & 0x3fff) << 15)) & MASK
    }
}

/// What a key is ordered by.
pub(super) fn key_hash(key: &StreamExpression, instances: &Instances) -> u32 {
    let mut hasher = Hasher(INITIAL);
    let mut function = None;
    key.visit_inputs(&mut |leaf| {
        if let StreamLeaf::Element { function: found, .. } = leaf {
            function = Some(*found);
        }
    });
    if let Some(function) = function {
        hasher.add_text("json_each");
        add_expression(&instances.functions[function].array, &mut hasher);
    }
    add_expression(key, &mut hasher);
    hasher.finish()
}

fn add_expression(expression: &StreamExpression, hasher: &mut Hasher) {
    let mut text = String::new();
    let namer = Namer { input: &|_| "?".to_owned(), is_hashed: true };
    write_sql(expression, &namer, &mut text);
    hasher.add_text(&text);
    expression.visit_inputs(&mut |leaf| match leaf {
        StreamLeaf::Column { name, .. } => hasher.add_text(name),
        StreamLeaf::Element { part, .. } => hasher.add_text(match part {
            ElementPart::Key => "key",
            ElementPart::Value => "value",
        }),
        StreamLeaf::Request(_) => {}
    });
}

#[cfg(test)]
mod tests {
    use crate::{expression::Expression, functions::Function};

    use super::*;

    fn column(name: &str) -> StreamExpression {
        Expression::Input(StreamLeaf::Column { table: 0, name: name.to_owned() })
    }

    fn order(names: &[&'static str]) -> Vec<&'static str> {
        let mut names = names.to_vec();
        names.sort_by_key(|name| key_hash(&column(name), &Instances::default()));
        names
    }

    #[test]
    fn keys_stand_in_the_order_of_the_specification() {
        assert_eq!(order(&["c1", "c2", "c3", "c4", "c5"]), ["c5", "c3", "c2", "c4", "c1"]);
        assert_eq!(order(&["owner", "org", "team"]), ["team", "org", "owner"]);
        assert_eq!(order(&["b", "a"]), ["a", "b"]);
        assert_eq!(order(&["org_id", "region"]), ["region", "org_id"]);
    }

    #[test]
    fn a_call_hashes_as_specified() {
        let lower = Expression::Call { function: Function::Lower, arguments: vec![column("name")] };
        assert_eq!(key_hash(&lower, &Instances::default()), 340_108_774);
    }
}
