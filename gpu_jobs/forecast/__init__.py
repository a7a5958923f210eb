"""What a campaign will cost and when it will end, by simulated futures."""
