"""How the embedded model ``photo`` was made: `python -m pretraining.photo.build --out FOLDER`."""
