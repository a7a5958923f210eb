"""The durable facts of a campaign, and their formats in the store."""
