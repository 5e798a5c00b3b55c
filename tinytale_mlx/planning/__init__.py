"""Will it fit, and how long will it take? Answered from a recipe alone, before anything is made or trained."""
