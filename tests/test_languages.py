from mainspring.languages import NAMES, base, is_code, name, nearest, nllb, subtags


def test_codes_are_read_as_people_write_them() -> None:
    assert subtags("zh-Hant") == subtags("ZH_hant") == ["zh", "hant"]
    assert base("deu_Latn") == base("de-AT") == base("DE") == "de"
    assert name("pt_BR") == "Portuguese" and name("eng_Latn") == "English" and name("tlh") == "tlh"


def test_names_of_columns_that_are_no_languages() -> None:
    assert all(map(is_code, ("en", "EN-US", "zho_Hans", "zh", "sr-Cyrl-RS")))
    assert not any(map(is_code, ("id2", "text", "id_column_number", "xx", "", "en.txt", "e")))


def test_nllb_codes() -> None:
    assert (nllb("en"), nllb("zh"), nllb("zh-TW")) == ("eng_Latn", "zho_Hans", "zho_Hant")
    assert len({long for _, long in NAMES.values()}) == len(NAMES)


def test_the_nearest_code_is_the_same_language() -> None:
    assert nearest("en", ["de", "en-us", "en"]) == "en"
    assert nearest("en", ["de", "en-us"]) == "en-us"
    assert nearest("zh-Hant", ["zh", "zh-hant"]) == "zh-hant"
    assert nearest("fr", ["de", "en"]) is None
