"""Published settings of the eleven benchmarks."""

# DESIGN's table of published settings: epochs, batch, learning rate, N, zero-shot template.
PUBLISHED = {
    "imagenet": (50, 256, 0.01, 4, "a photo of a {}."),
    "caltech101": (200, 32, 0.005, 6, "a photo of a {}."),
    "oxford_pets": (200, 32, 0.005, 6, "a photo of a {}, a type of pet."),
    "stanford_cars": (200, 32, 0.005, 4, "a photo of a {}."),
    "flowers102": (200, 32, 0.005, 6, "a photo of a {}, a type of flower."),
    "food101": (200, 128, 0.005, 6, "a photo of {}, a type of food."),
    "fgvc_aircraft": (200, 128, 0.01, 2, "a photo of a {}, a type of aircraft."),
    "sun397": (200, 128, 0.005, 4, "a photo of a {}."),
    "dtd": (200, 128, 0.002, 4, "{} texture."),
    "eurosat": (200, 10, 0.001, 4, "a centered satellite photo of {}."),
    "ucf101": (200, 128, 0.005, 4, "a photo of a person doing {}."),
}
