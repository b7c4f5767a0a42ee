"""Two machines of one name: what must be so before one takes the other's place, and who must know it afterwards."""
