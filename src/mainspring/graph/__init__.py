"""A knowledge graph out of documents: triples with their provenance in an embedded RDF store.

    documents ─ passages ─ extraction ─ linking ─ writing ─▶ store ─▶ query, ask, export, page

An `Extractor` finds mentions and relations in passages; `linking` says which entity a mention is;
`writing` puts what was found into RDF, one named graph a document; `store` holds it on disk.
"""
