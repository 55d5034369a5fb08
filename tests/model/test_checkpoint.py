import json
import shutil

import pytest

from model.checkpoint import SYSTEM_TEXT, Checkpoint, CheckpointError
from model.image_size import ImageLimits

# Qwen2.5-VL's own template, which Rex-Omni's checkpoint carries, less its branches for video and numbered pictures.
QWEN_TEMPLATE = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}<|im_end|>
{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}\
<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture
def folder(checkpoint, tmp_path):
    """The shipped checkpoint's small files, to be changed."""
    for path in checkpoint.folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path)
    return tmp_path


def _change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_facts(checkpoint):
    assert checkpoint.embedding_rows == 1498
    assert checkpoint.context_length == 4096
    assert checkpoint.dtype == "float32"
    assert checkpoint.quantization is None
    assert checkpoint.image_limits == ImageLimits(50176, 50176)
    assert checkpoint.stop_token_ids == (484, 486)
    assert checkpoint.kv_values_per_token == 2 * 5 * 192


def test_prompt_in_the_tiny_checkpoints_training_format(checkpoint):
    assert checkpoint.render("Detect ring.") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>Detect ring.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_prompt_in_rex_omnis_format(folder):
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_TEMPLATE}))
    assert Checkpoint.load(folder).render("Detect ring.") == (
        f"<|im_start|>system\n{SYSTEM_TEXT}<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|vision_end|>Detect ring.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not SYSTEM_TEXT.endswith(".")


def test_rendering_equals_transformers(checkpoint):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    user = [{"type": "image"}, {"type": "text", "text": "Detect ring, \n{{ star }}."}]
    messages = [{"role": "system", "content": SYSTEM_TEXT}, {"role": "user", "content": user}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert checkpoint.render(user[1]["text"]) == theirs
    assert checkpoint.encode(user[1]["text"]) == tokenizer(theirs, add_special_tokens=False).input_ids


def test_an_image_placeholder_in_the_prompt_is_refused(checkpoint):
    with pytest.raises(CheckpointError, match="2 image placeholders"):
        checkpoint.encode("Detect <|image_pad|>.")


def test_context(checkpoint):
    assert checkpoint.context_for(ImageLimits(50176, 50176), 41, 512) == 128 + 40 + 512
    with pytest.raises(CheckpointError, match=r"lower max_tokens to 3928$"):
        checkpoint.context_for(ImageLimits(50176, 50176), 41, 4096)
    with pytest.raises(CheckpointError, match="lower max_pixels"):
        checkpoint.context_for(ImageLimits(max_pixels=5000 * 784), 41, 512)


@pytest.mark.parametrize(
    ("facts", "limits"),
    [
        pytest.param({"min_pixels": 784, "max_pixels": 78400}, ImageLimits(784, 78400), id="old names"),
        pytest.param({"size": {"shortest_edge": 784, "longest_edge": 78400}}, ImageLimits(784, 78400), id="new names"),
        pytest.param(
            {"min_pixels": 3136, "max_pixels": 12845056}, ImageLimits(), id="Qwen's stock limits are Rex-Omni's"
        ),
        pytest.param({}, ImageLimits(), id="none given"),
    ],
)
def test_image_limits(folder, facts, limits):
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    assert Checkpoint.load(folder).image_limits == limits


def test_older_config_with_text_at_the_top(folder):
    config = json.loads((folder / "config.json").read_text())
    flat = (
        config.pop("text_config") | config | {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "awq"}}
    )
    del flat["dtype"]
    (folder / "config.json").write_text(json.dumps(flat))
    loaded = Checkpoint.load(folder)
    assert (loaded.embedding_rows, loaded.dtype, loaded.quantization) == (1498, "bfloat16", "awq")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name}"):
        Checkpoint.load(folder)


def test_missing_template_and_missing_fact(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        Checkpoint.load(folder)
    _change(folder, "config.json", text_config={})
    with pytest.raises(CheckpointError, match="no num_attention_heads"):
        Checkpoint.load(folder)


def test_hashes_follow_content(checkpoint, folder):
    changed = Checkpoint.load(folder)
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        _ = changed.weights_hash
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert len(checkpoint.weights_hash) == 64
    assert changed.weights_hash != checkpoint.weights_hash
    assert changed.tokenizer_hash == checkpoint.tokenizer_hash
    (folder / "chat_template.jinja").write_text(QWEN_TEMPLATE)
    assert Checkpoint.load(folder).chat_template_hash != checkpoint.chat_template_hash
