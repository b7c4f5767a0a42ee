"""The cluster's certificate authority is replaced: first both are trusted, then the new one signs, then it is alone."""
