# For a CPU: docker build -t lift . && docker run --rm -v "$PWD:/data" lift embed videos --out embeddings.parquet
FROM python:3.13-slim
# both from the index without CUDA: the two must be of one build
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY setup.py settings.ini pyproject.toml MANIFEST.in README.md LICENSE /src/
COPY lift /src/lift
RUN pip install --no-cache-dir "/src[plot]" && rm -r /src
WORKDIR /data
ENTRYPOINT ["lift"]
CMD ["--help"]
