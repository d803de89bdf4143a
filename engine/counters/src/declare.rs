//! The declaration of counters.

/// Declares a struct of counters.
///
/// ```
/// use stampede_counters::{Counters, Seconds, counters};
///
/// counters! {
///     /// Cakes of one baker.
///     pub struct Cakes: Peer {
///         /// Times that a cake was baked.
///         baked: u64 = Times, Higher;
///         /// How long they took together.
///         baking_s: Seconds = Seconds, Lower, metric "oven_seconds";
///     }
/// }
/// # pub use stampede_counters::Unit;
/// let baked = Cakes { baked: 3, ..Cakes::default() };
/// assert_eq!(serde_json::to_value(&baked).unwrap()["baked"], 3);
/// assert_eq!(Cakes::table()[1].metric, "oven_seconds");
/// ```
///
/// The struct's name is followed by whose counts they are ([`Scope`](crate::Scope)). A field is
/// `u64`, `Option<u64>` (`None` is unknown), [`Seconds`](crate::Seconds) (its name ends in `_s`),
/// [`Longest`](crate::Longest) (a maximum), or another struct of counters: a group. Counters have a
/// [`Unit`](crate::Unit) and say which way they are [`Better`](crate::Better). `name as "key"`
/// gives it another key in the JSON; `column "…"` and `metric "…"` do so for the CSV and for Prometheus, `gauge "…"` in the place
/// of the latter for what may fall while a run goes on. Of a group column and metric are what its
/// counters' names begin with; `name (flatten)` puts its counters beside those around it, and
/// `name (skip)` leaves it out of JSON and table, for a section that has it elsewhere.
#[macro_export]
macro_rules! counters {
    (
        $(#[doc = $about:tt])+
        pub struct $name:ident: $scope:ident {
            $(
                $(#[doc = $help:tt])+
                $field:ident $(($serde:ident))? $(as $key:literal)? : $type:ty
                $(= $unit:ident, $better:ident)?
                $(, column $column:literal)?
                $(, metric $metric:literal)? $(, gauge $gauge:literal)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq,
            $crate::export::serde::Serialize, $crate::export::serde::Deserialize,
            $crate::export::schemars::JsonSchema,
        )]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[doc = $help])+
                $(#[serde($serde)])?
                $(#[serde(rename = $key)])?
                pub $field: $type,
            )+
        }

        impl $name {
            /// Adds another's counts. What only one of them knows is as that one knows it.
            #[inline]
            pub fn merge(&mut self, other: &Self) {
                $($crate::Figure::merge(&mut self.$field, &other.$field);)+
            }

            /// What was counted since `earlier`, an older copy of the same counters.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: $crate::Figure::since(&self.$field, &earlier.$field),)+ }
            }
        }

        impl $crate::Figure for $name {
            fn merge(&mut self, other: &Self) {
                self.merge(other);
            }

            fn merge_known(&mut self, other: &Self) {
                $($crate::Figure::merge_known(&mut self.$field, &other.$field);)+
            }

            fn since(&self, earlier: &Self) -> Self {
                self.since(earlier)
            }

            fn at_least(&self, least: &Self) -> Self {
                Self { $($field: $crate::Figure::at_least(&self.$field, &least.$field),)+ }
            }

            fn describe(
                field: &$crate::Field,
                at: &$crate::Place,
                table: &mut Vec<$crate::Counter>,
            ) {
                <Self as $crate::Counters>::describe_fields(&at.within(field), table);
            }

            fn values(&self, to: &mut dyn FnMut($crate::Value)) {
                $(
                    if $crate::counters!(@in_table $($serde)?) {
                        $crate::Figure::values(&self.$field, to);
                    }
                )+
            }

            fn set(&mut self, from: &mut dyn FnMut() -> Option<$crate::Value>) {
                $(
                    if $crate::counters!(@in_table $($serde)?) {
                        $crate::Figure::set(&mut self.$field, from);
                    }
                )+
            }
        }

        impl $crate::Counters for $name {
            fn describe_fields(at: &$crate::Place, table: &mut Vec<$crate::Counter>) {
                $(
                    if $crate::counters!(@in_table $($serde)?) {
                        let field = $crate::Field {
                            name: $crate::counters!(@first $($key,)? stringify!($field)),
                            help: concat!($($help),+).trim_ascii(),
                            unit: $crate::counters!(@first $(Some($crate::Unit::$unit),)? None),
                            better: $crate::counters!(
                                @first $(Some($crate::Better::$better),)? None
                            ),
                            scope: $crate::Scope::$scope,
                            serde: $crate::counters!(@first $(Some(stringify!($serde)),)? None),
                            column: $crate::counters!(@first $(Some($column),)? None),
                            metric: $crate::counters!(
                                @first $(Some($metric),)? $(Some($gauge),)? None
                            ),
                            falls: $crate::counters!(@first $(Some($gauge),)? None::<&str>)
                                .is_some(),
                            group: stringify!($name),
                        };
                        <$type as $crate::Figure>::describe(&field, at, table);
                    }
                )+
            }

            fn table() -> &'static [$crate::Counter] {
                static TABLE: std::sync::LazyLock<Vec<$crate::Counter>> =
                    std::sync::LazyLock::new(|| {
                        let mut table = Vec::new();
                        $name::describe_fields(&$crate::Place::default(), &mut table);
                        table
                    });
                &TABLE
            }
        }
    };
    (@first $first:expr $(, $rest:expr)*) => { $first };
    (@in_table skip) => { false };
    (@in_table $($serde:ident)?) => { true };
}
