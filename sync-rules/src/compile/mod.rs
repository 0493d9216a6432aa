//! Rules text to a plan: YAML to [`crate::config`], SQL to [`crate::syntax`], both to [`crate::definition`].
//!
//! A front end per dialect ([`classic`], [`kairos`], [`alpha`] for streams of edition 2, [`stream`] for those of edition
//! 3) ends in the same plan. They share how expressions are compiled ([`expression`]) and how names of tables are read
//! ([`table`]); what names mean in a place is a `Scope`.
//!
//! **Invariants**
//!
//! - Nothing is dropped silently: what is not compiled is refused with a diagnostic.
//! - A finding in one query does not hide those in others.
//!
//! Start reading at [`compile`].

mod alpha;
mod classic;
mod event;
mod expression;
mod filter;
mod kairos;
mod normal_form;
mod stream;
mod table;
mod write;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use crate::{
    config::{Body, Config, Report, read},
    definition::{Definition, IndexId, IndexPart, IndexQuery, RowQuery, RowSource},
    diagnostic::{Problem, ScalarId, Severity},
    places::{DefinitionPlace, Places},
    plan::{Compiled, PLAN_FORMAT, SyncPlan, TablePattern, hash},
    schema::SourceSchema,
    syntax::{Name, Position},
    yaml::Node,
};

/// Priority of buckets that do not say.
const PRIORITY_DEFAULT: u8 = 3;

/// What a rules file is compiled for.
#[derive(Debug, Clone, Copy)]
pub struct CompileOptions<'a> {
    /// Schema of unqualified table names, `public` for Postgres.
    pub default_schema: &'a str,
    /// The source's tables, where they are known: warnings depend on them, the plan does not.
    pub schema: Option<&'a SourceSchema>,
}

/// What all queries of a file share.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// Schema of unqualified table names.
    pub default_schema: &'a str,
    /// The option `fixed_json_extract`.
    pub fixed_json: bool,
    /// The source's tables, where they are known.
    pub schema: Option<&'a SourceSchema>,
    /// Warnings about the query being compiled.
    warnings: RefCell<Vec<Problem>>,
    /// What the query being compiled names of the source.
    named: RefCell<Vec<NamedPart>>,
    /// Texts that queries use by name.
    scalars: Vec<&'a Node>,
    /// The one of them that is being compiled.
    scalar: Cell<Option<ScalarId>>,
}

/// A table that a query names, or a column of it.
#[derive(Debug)]
struct NamedPart {
    table: TablePattern,
    column: Option<String>,
    position: Position,
    scalar: Option<ScalarId>,
}

impl<'a> Context<'a> {
    /// Notes a warning about the query being compiled.
    fn warn(&self, problem: Problem) {
        self.warnings.borrow_mut().push(Problem { scalar: self.scalar.get(), ..problem });
    }

    /// The id of a text that queries use by name.
    fn scalar(&self, node: &Node) -> Option<ScalarId> {
        self.scalars.iter().position(|known| std::ptr::eq(*known, node)).map(ScalarId)
    }

    /// The text a position is in: one that is used by name, or the query's own.
    fn node<'n>(&self, scalar: Option<ScalarId>, query: &'n Node) -> &'n Node
    where
        'a: 'n,
    {
        scalar.and_then(|ScalarId(index)| self.scalars.get(index).copied()).unwrap_or(query)
    }

    /// Notes that the query being compiled names a table or a column. Only findings about the source need to know.
    fn note_name(&self, table: &TablePattern, column: Option<&Name>, position: Position) {
        if self.schema.is_some() {
            let column = column.map(|name| name.text.clone());
            let scalar = self.scalar.get();
            self.named.borrow_mut().push(NamedPart { table: table.clone(), column, position, scalar });
        }
    }
}

/// The lists of a plan while it is put together.
#[derive(Debug, Default)]
pub(crate) struct PlanBuilder {
    rows: Vec<RowQuery>,
    indexes: Vec<IndexQuery>,
}

impl PlanBuilder {
    /// Adds a row query.
    fn add_rows(&mut self, query: RowQuery) -> usize {
        self.rows.push(query);
        self.rows.len() - 1
    }

    /// Adds a row query, or finds the same.
    fn share_rows(&mut self, query: RowQuery) -> usize {
        let known = self.rows.iter().position(|known| *known == query);
        known.unwrap_or_else(|| self.add_rows(query))
    }

    /// Adds an index, or finds the same.
    fn index(&mut self, label: &str, source: RowSource, key: Vec<IndexPart>, value: Vec<IndexPart>) -> IndexId {
        /// Of a hash's digits; among a thousand indexes two meet once in 10^13 files.
        const ID_LENGTH: usize = 16;
        let mut id = hash(&(PLAN_FORMAT, &source, &key, &value));
        id.truncate(ID_LENGTH);
        let id = IndexId(id);
        if self.indexes.iter().all(|known| known.id != id) {
            self.indexes.push(IndexQuery { id: id.clone(), label: label.to_owned(), source, key, value });
        }
        id
    }
}

/// Compiles a rules file. `default_schema` is the schema of unqualified table names, `public` for Postgres.
pub fn compile(yaml: &str, default_schema: &str) -> Compiled {
    compile_with(yaml, &CompileOptions { default_schema, schema: None })
}

/// Compiles a rules file, with warnings about what the source has.
pub fn compile_with(yaml: &str, options: &CompileOptions<'_>) -> Compiled {
    let root = match Node::parse(yaml) {
        Ok(root) => root,
        Err(diagnostic) => {
            return Compiled { plan: None, diagnostics: vec![diagnostic], places: Places::default() };
        }
    };
    let mut report = Report { file: yaml, diagnostics: Vec::new(), places: Places::default() };
    let plan = read(&root, &mut report).map(|config| plan(&config, options, &mut report));
    let is_fatal = report.has_fatal();
    report.diagnostics.sort_by_key(|diagnostic| diagnostic.span);
    Compiled { plan: plan.filter(|_| !is_fatal), diagnostics: report.diagnostics, places: report.places }
}

fn plan(config: &Config<'_>, options: &CompileOptions<'_>, report: &mut Report<'_>) -> SyncPlan {
    let named_selects = config.with.iter().chain(config.streams.iter().flat_map(|stream| &stream.with));
    let context = Context {
        default_schema: options.default_schema,
        fixed_json: config.options.fixed_json,
        schema: options.schema,
        warnings: RefCell::default(),
        named: RefCell::default(),
        scalars: named_selects.map(|(_, node)| *node).collect(),
        scalar: Cell::default(),
    };
    report.places.definitions = definition_places(config);
    let mut builder = PlanBuilder::default();
    let mut definitions: Vec<Definition> = Vec::new();
    for definition in &config.definitions {
        definitions.push(match &definition.body {
            Body::Classic { parameters, data } => {
                classic::compile_definition(definition, parameters.as_deref(), data, &context, &mut builder, report)
            }
            Body::Kairos { parameters, data } => {
                kairos::compile_definition(definition, parameters, data, &context, &mut builder, report)
            }
        });
    }
    if config.options.edition == 3 {
        definitions.extend(stream::compile_streams(config, &context, &mut builder, report));
    } else {
        for stream in &config.streams {
            definitions.push(alpha::compile_stream(stream, &context, &mut builder, report));
        }
    }
    let events = config.events.iter().flat_map(|event| event::compile_event(event, &context, report)).collect();
    let mut policies = BTreeMap::new();
    for rule in &config.write_rules {
        if let Some(policy) = write::compile_rule(rule, report) {
            if let Some(source) = options.schema {
                write::compare_with_source(rule, &policy, source, options.default_schema, report);
            }
            policies.insert(rule.table.to_owned(), policy);
        }
    }
    SyncPlan {
        format: PLAN_FORMAT,
        compatibility: config.options.compatibility,
        versioned_bucket_ids: config.options.versioned_bucket_ids,
        rows: builder.rows,
        indexes: builder.indexes,
        events,
        definitions,
        policies,
    }
}

fn definition_places(config: &Config<'_>) -> Vec<DefinitionPlace> {
    let place =
        |name: &str, span, accepts_dangerous| DefinitionPlace { name: name.to_owned(), span, accepts_dangerous };
    let definitions = config.definitions.iter().map(|it| place(&it.name, it.span, it.accepts_dangerous));
    definitions.chain(config.streams.iter().map(|it| place(&it.name, it.span, it.accepts_dangerous))).collect()
}

impl Report<'_> {
    /// Adds a fatal problem of a query.
    fn problem(&mut self, node: &Node, problem: Problem) {
        let diagnostic = node.diagnose(self.file, problem, Severity::Fatal);
        self.diagnostics.push(diagnostic);
    }

    /// Adds a warning about a query.
    fn warning(&mut self, node: &Node, problem: Problem) {
        let diagnostic = node.diagnose(self.file, problem, Severity::Warning);
        self.diagnostics.push(diagnostic);
    }

    /// Adds the warnings and names noted while a query was compiled.
    fn noted(&mut self, node: &Node, context: &Context<'_>) {
        for problem in context.warnings.take() {
            self.warning(context.node(problem.scalar, node), problem);
        }
        let file = self.file;
        for NamedPart { table, column, position, scalar } in context.named.take() {
            self.places.note(table, column, || context.node(scalar, node).locate(file, position));
        }
    }
}
