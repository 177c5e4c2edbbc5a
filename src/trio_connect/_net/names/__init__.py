"""From names to addresses: resolvers, lookups, routes."""
