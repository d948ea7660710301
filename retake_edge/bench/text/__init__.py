"""Facts in long text, by a pretrained language model: what compression of text keeps."""
