"""What a run of a verb was asked for and what it has seen so far: one class for each verb that has such things."""
