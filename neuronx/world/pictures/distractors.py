"""300 words for things that no picture of this world ever shows. A good explanation never uses them."""

_WORDS = """
accordion airplane almond ambulance anchor ant antelope anvil apron armchair artichoke asparagus avocado axe
backpack badger bagel bagpipe bakery balcony banjo barber barn basil basket bassoon bathtub beaver bedroom beetle
bicycle binoculars biscuit bishop blender blouse bobsled bonfire bookcase bottle bracelet bread bridge broccoli
broom bucket buffalo bulldozer burrito bus butcher butterfly cabbage cactus calculator camel camera candle canoe
canyon carpet carrot castle cathedral cello chainsaw chandelier cheese cheetah chef chimney chipmunk cinema clarinet
cliff coconut coffee comb compass corridor cottage cow coyote crab cradle cricket crocodile cucumber cupboard curry
cyclist dancer dentist desk dolphin donkey doorway dragonfly drill drum duck dumpling eagle earring eel eggplant
elbow elephant elevator engine envelope escalator faucet fence ferret ferry firefighter flamingo flute forest fork
fountain fox freezer fridge frog garage garlic giraffe glove goat goggles goldfish gorilla grapefruit guitar
hairdryer hammer hammock hamster harbour harmonica harp hedgehog helicopter helmet heron hippo hockey horse hospital
hotel hyena iguana jacket jaguar jeep jellyfish judo juggler kangaroo kayak kettle keyboard kitchen kitten knife
koala ladder ladle lamp lantern laptop lasagne lawyer lemur leopard library lighthouse lizard llama lobster
locomotive lorry magnet mailbox mandolin marathon mattress melon microphone microscope minivan mitten monkey moose
mosque mosquito motorcycle mug mushroom nurse oboe octopus omelette onion orchestra ostrich otter oven owl oyster
paddle pancake panda parachute parrot peacock pelican penguin piano pigeon pillow pineapple pizza plumber porcupine
pretzel printer pumpkin puppy quilt rabbit raccoon radio radish railway referee rhino rifle robot rooster rucksack
sailor salmon sandal sandwich saxophone scarf scissors scooter scorpion seahorse sewing shark sheep shovel
skateboard skier skunk snail snorkel sofa spaniel sparrow spatula spider spinach squid squirrel stapler statue
stethoscope stork stove submarine suitcase surgeon swan sweater syringe tambourine taxi teapot telephone temple
tennis termite terrier toaster tobacco toilet tomato toothbrush tractor trombone trousers trumpet tuba turkey
"""

DISTRACTORS: tuple[str, ...] = tuple(_WORDS.split())
