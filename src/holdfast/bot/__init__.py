"""The Telegram bot: members ask for access and look after their subscription, operators decide."""
