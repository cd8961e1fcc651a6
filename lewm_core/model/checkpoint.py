def load_checkpoint(path): pass
def save_checkpoint(): pass
