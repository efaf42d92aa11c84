# The app in a container, and as a Hugging Face Space (`hemazoo-train deploy-space`).
# DEVICE=cpu (default) installs torch without CUDA, like `make demo DEVICE=cpu`.
# For a GPU: docker build --build-arg DEVICE=cuda -t hemazoo . && docker run --gpus all -p 8501:8501 hemazoo
# The full version is pinned; `docker buildx imagetools inspect python:3.11.14-slim-bookworm` prints a digest to pin, too.
FROM python:3.11.14-slim-bookworm

ARG DEVICE=cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 \
    HF_HOME=/home/user/.cache/huggingface HEMAZOO_CACHE=/home/user/.cache/hemazoo \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HEMAZOO_KEEP_REVIEWS=0
# A Space is shown in a frame of another site, where browsers block the cookie of Streamlit's protection against forged
# requests, so that every upload would fail (403). The app works without it: there are no accounts and no cookies of
# ours, and only the session that uploads a picture can see it.
ENV STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION=false

# Spaces run containers as the user with this id.
RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app

COPY requirements.txt .
COPY requirements.lock .
# The CPU builds of torch leave several GB of CUDA libraries out of the image.
RUN if [ "$DEVICE" = cpu ]; then \
        grep -E '^(torch|torchvision)==' requirements.txt > torch.txt \
        && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -r torch.txt \
        && awk '/^[a-z]/ {kept = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/} kept' requirements.lock > others.lock \
        && pip install --no-cache-dir --no-deps --require-hashes -r others.lock; \
    else \
        pip install --no-cache-dir --require-hashes -r requirements.lock; \
    fi

COPY --chown=1000:1000 . .
USER 1000
EXPOSE 8501
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:8501/_stcore/health')"]
# A Space that restarts has an empty home. Keep caches under /data where the Space has persistent storage.
CMD ["sh", "-c", "if [ -w /data ]; then export HF_HOME=/data/huggingface HEMAZOO_CACHE=/data/hemazoo; fi; exec streamlit run app.py --server.port=8501 --server.address=0.0.0.0"]
