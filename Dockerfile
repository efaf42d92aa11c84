# The app in a container, and as a Hugging Face Space (`python -m training deploy-space`).
# CPU by default; for a GPU: docker build --build-arg DEVICE=cuda -t hemazoo . && docker run --gpus all -p 8501:8501 hemazoo
FROM python:3.11-slim

ARG DEVICE=cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 \
    HF_HOME=/home/user/.cache/huggingface HEMAZOO_CACHE=/home/user/.cache/hemazoo \
    HF_HUB_DISABLE_TELEMETRY=1
# A Space is shown in a frame of another site. Browsers keep the cookie of Streamlit's protection against forged requests
# from it, and every upload would be refused (403). There is nothing to forge here: no accounts, no cookies of ours, and
# what a session uploads only that session sees.
ENV STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION=false

# Spaces run containers as this user
RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/app

COPY requirements.txt .
# The CPU builds of torch leave several GB of CUDA libraries out of the image.
RUN if [ "$DEVICE" = cpu ]; then \
        grep -E '^(torch|torchvision)==' requirements.txt > torch.txt \
        && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -r torch.txt; \
    fi \
    && pip install --no-cache-dir -r requirements.txt

COPY --chown=1000:1000 . .
USER 1000
EXPOSE 8501
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:8501/_stcore/health')"]
# A Space that slept begins anew with an empty home; what is under /data, where it has such a disk, is still there.
CMD ["sh", "-c", "if [ -w /data ]; then export HF_HOME=/data/huggingface HEMAZOO_CACHE=/data/hemazoo; fi; exec streamlit run app.py --server.port=8501 --server.address=0.0.0.0"]
