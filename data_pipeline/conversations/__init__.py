"""Conversations: who speaks when, read from the RTTM files of any diarizer."""
