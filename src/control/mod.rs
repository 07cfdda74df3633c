//! Configuration: files to resources, resources to a graph with conditions, the graph to the model that is served.
pub mod read;
pub mod resources;
pub mod source;
pub mod yaml;
