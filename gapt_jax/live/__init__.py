"""Playing live: an engine that plans ahead of a player, and the server of its page."""
