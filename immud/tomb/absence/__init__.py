"""What is at a tomb's place while the tomb is away, and what people are told."""
