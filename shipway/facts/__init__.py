"""What is: facts about a host, each a command as a list of words and a parser of its output."""
