"""Functions of the task of lmms-eval."""


def doc_to_visual(doc):
    return [doc["video"]]


def process_results(doc, results):
    return {"right": float(doc["answer"].lower() in results[0].lower())}
