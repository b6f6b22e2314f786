"""What is made of a trained model: scores, result files, pictures, and what its codes carry."""
