"""Every command of the command line's contract composes."""

import shlex

import pytest
from hydra import compose, initialize_config_module

from neuronx.command.cli import chosen_task, rewrite
from neuronx.command.typed import meant

EVALUATE = """
sim=correlation
target=resnet50_imagenet data=imagenet_val data.root=/data/imagenet
target=resnet50_imagenet 'layers=[layer3,layer4]' pool=avg units=0:64
target=resnet50_imagenet 'units=[1,7,9]'
target=resnet50_imagenet units=random:50
target=custom target.custom.model=mynets.ResNet20 target.custom.weights=r20.th target.custom.transform=cifar10
data=folder data.root=DIR data.hierarchy=superclasses.json judge=labels explain=le_label
target=resnet50_imagenet show=layers
show=units
show=concepts
show=data
explanations=their.csv layers=layer4
'explanations=[{file:a.csv,method:dnd,layer:layer4},{file:b.csv,method:milan}]'
explanations=DIR sim=stored
'explain=[le_label,clip_dissect]' 'sim=[]'
explain.le_label.solver=saga
explain.le_label.search=greedy
explain.clip_dissect.similarity=wpmi
judge=labels
judge=masks
'sim=[correlation,ablation]' 'explain=[le_label,net_dissect]'
'explain=[]' 'sim=[]' exemplars=15 layers=layer4
'explain=[]' 'sim=[]' 'exemplars={k: 5, quantile: 0.995, images: all}'
explain=compositional explain.compositional.length=2
explain.clip_dissect.pairs=true
show=importance
target=shapes_gan explain=clip_dissect
'judge=[shapes_judge,labels]'
data=imagenet_val data.root=/data judge=labels
recipe=le_table2_resnet50 data.root=/data/imagenet
logger=wandb logger.wandb.mode=online logger.wandb.images=true
'layers="mlp[1]"'
target=shapes_resnet target.shapes_resnet.dictionary=sae.safetensors
trainer.devices=4 trainer.strategy=ddp trainer.precision=bf16-mixed
trainer=cpu trainer.max_epochs=3
concepts=3k
concepts=file concepts.path=words.txt
"""

TRAIN = """
le=label target=resnet50_imagenet data=imagenet_val data.root=DIR le.solver=saga
le=clip
classifier=shapes_resnet
classifier=shapes_vit
contrastive=shapes_explainer
contrastive=shapes_judge
generator=shapes_gan
sae=topk target=shapes_vit layers=blocks.3 pool=first
sae=matryoshka sae.expansion=4 sae.k=32
classifier=shapes_resnet ckpt_path=results/last.ckpt ship=true
classifier=shapes_resnet trainer.devices=4 trainer.strategy=ddp trainer.precision=bf16-mixed
"""


def composed(root: str, line: str):
    arguments = [out for word in shlex.split(line) for out in rewrite(word)]
    with initialize_config_module("neuronx.configs", version_base="1.3"):
        return meant(compose(root, overrides=arguments), arguments)


@pytest.mark.parametrize("line", EVALUATE.strip().splitlines())
def test_evaluate_commands_compose(line):
    assert composed("evaluate", line).seed == 0


@pytest.mark.parametrize("line", TRAIN.strip().splitlines())
def test_train_commands_compose(line):
    assert chosen_task(composed("train", line)) in line


def test_trainer_arguments_reach_the_trainer():
    cfg = composed("evaluate", "trainer.devices=4 trainer.strategy=ddp")
    assert cfg.trainer.devices == 4 and cfg.trainer.strategy == "ddp"


def test_layer_names_may_have_brackets():
    assert composed("evaluate", "'layers=\"mlp[1]\"'").layers == "mlp[1]"
