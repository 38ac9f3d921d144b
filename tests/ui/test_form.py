"""The form shows a run and gives the same run back."""

from trainer import config
from ui import form

RUN = {
    "task": "reviews",
    "base_model": "starter",
    "train_file": "/data/train.tsv",
    "peft": "full",
    "learning_rate": 1e-3,
}


def test_a_run_survives_the_form():
    run = config.from_dict(RUN)
    again = config.from_dict(form.from_form(form.to_form(run.model_dump())))
    assert again == run


def test_lists_and_empty_boxes_survive_the_form():
    run = config.from_dict(
        RUN | {"target_modules": ["q_proj", "v_proj"], "neftune_noise_alpha": 5, "system_prompt": ""}
    )
    assert config.from_dict(form.from_form(form.to_form(run.model_dump()))) == run


def test_an_empty_number_means_the_default():
    values = form.to_form(config.from_dict(RUN).model_dump())
    values[form.NAMES.index("epochs")] = ""
    assert config.from_dict(form.from_form(values)).epochs == config.RunConfig.model_fields["epochs"].default


def test_every_field_stands_in_one_group():
    grouped = [name for group in form.GROUPS for name in form.fields_of(group)]
    assert grouped == form.NAMES
