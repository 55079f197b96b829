"""Model cards, as the hub reads them."""

from huggingface_hub import ModelCard

from mainspring.checkpoints.card import Card, card_text


def test_a_whole_card() -> None:
    text = card_text(
        Card(
            name="news",
            task="summarize",
            base_model="google-t5/t5-small",
            data="news.csv",
            rows=9488,
            scores={"rouge1": 41.234567, "rougeL": 38.0},
            command='mainspring fit summarize news.csv --model google-t5/t5-small --out "my runs"',
            parameters=60_506_624,
            languages=("en", "zh"),
            license="apache-2.0",
            data_license="cc-by-4.0",
            limits=("Trained on news only.",),
        )
    )
    header = ModelCard(text).data
    assert header.license == "apache-2.0"
    assert header.language == ["en", "zh"]
    assert header.pipeline_tag == "summarization"
    assert header.base_model == "google-t5/t5-small"
    assert header.library_name == "transformers"
    for part in (
        "# news",
        "fine-tuned from `google-t5/t5-small`",
        "`news.csv` (9,488 training rows)",
        "60,506,624 parameters",
        "| rouge1 | 41.23 |",
        '--out "my runs"',
        "Model: apache-2.0. Data: cc-by-4.0.",
        "- Trained on news only.",
    ):
        assert part in text


def test_what_is_not_known_is_said_or_left_out() -> None:
    text = card_text(Card(name="x", task="pretrain", base_model="runs/mine/"))
    header = ModelCard(text).data.to_dict()
    assert header == {"library_name": "transformers", "tags": ["mainspring"]}
    assert "Model: not stated. Data: not stated." in text
    assert "## Scores" not in text
    assert "## Limits" in text
    assert "trained from scratch" in card_text(Card(name="x", task="pretrain"))
    assert "trained" not in card_text(Card(name="x")).split("## Limits")[0]


def test_an_adapter_says_what_it_is_and_belongs_to() -> None:
    text = card_text(Card(name="x", task="generate", base_model="a/model", adapter=True))
    header = ModelCard(text).data
    assert header.library_name == "peft" and header.base_model == "a/model"
    assert "A LoRA adapter for the task `generate`, fine-tuned from `a/model`" in text
