"""Other programs' formats: PEFT folders, GGUF adapters, merged GGUF files, Ollama Modelfiles.

What a format cannot say is refused on the way in and listed on the way out.
"""
